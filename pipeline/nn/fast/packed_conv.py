"""A convolution whose weights are laid out once for the kernels of this machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ANY_SIDE_PX = 64


class PackedConv:
    """An unpadded convolution of channels-last batches on a CPU.

    Where torch has oneDNN, the weights are reordered at construction, not at every call; elsewhere the
    plain operator runs.

    Args:
        weight_OIHW: (O, I, kH, kW) float32.
        bias_O: (O,) float32, or None.
        stride: vertical and horizontal.
        dtype: float32 or bfloat16, of weights, input and output; sums are kept in float32.
    """

    def __init__(
        self,
        weight_OIHW: Tensor,
        bias_O: Tensor | None,
        *,
        stride: tuple[int, int] = (1, 1),
        dtype: torch.dtype,
    ) -> None:
        self.out_channels, self.in_channels, self.kernel_height, self.kernel_width = weight_OIHW.shape
        self.stride = stride
        self.bias_O = None if bias_O is None else bias_O.detach().to(dtype)
        weight = weight_OIHW.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self._packed = torch.backends.mkldnn.is_available()
        if self._packed:
            some_size = (1, self.in_channels, _ANY_SIDE_PX, _ANY_SIDE_PX)
            # Through torch.ops: the stub of the function in torch._C lacks the size.
            weight = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), (0, 0), stride, (1, 1), 1, some_size
            )
        self._weight = weight

    def __call__(self, window_NCHW: Tensor) -> Tensor:
        """Convolve (N, I, H, W) channels-last to (N, O, H', W') channels-last without padding."""
        if not self._packed:
            return F.conv2d(window_NCHW, self._weight, self.bias_O, self.stride)
        out_NCHW: Tensor = torch.ops.mkldnn._convolution_pointwise(
            window_NCHW, self._weight, self.bias_O, (0, 0), self.stride, (1, 1), 1, "none", (), ""
        )
        return out_NCHW
