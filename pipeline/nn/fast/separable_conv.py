"""A depthwise-separable convolution whose weights are laid out once for the kernels of this machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.nn.fast.packed_conv import PackedConv


class SeparableConv:
    """A convolution of each channel by itself, then a packed 1x1 one; the same face as a ``PackedConv``.

    Args:
        depthwise_I1HW: (I, 1, kH, kW) float32.
        weight_OIHW: (O, I, 1, 1) float32.
        stride: vertical and horizontal.
        dtype: float32 or bfloat16, of weights, input, output and what lies between.
    """

    def __init__(
        self, depthwise_I1HW: Tensor, weight_OIHW: Tensor, *, stride: tuple[int, int], dtype: torch.dtype
    ) -> None:
        self.in_channels, _, self.kernel_height, self.kernel_width = depthwise_I1HW.shape
        self.out_channels = len(weight_OIHW)
        self.stride = stride
        self._depthwise = depthwise_I1HW.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self._mix = PackedConv(weight_OIHW, None, dtype=dtype)

    def __call__(self, window_NCHW: Tensor) -> Tensor:
        """Convolve (N, I, H, W) channels-last to (N, O, H', W') channels-last without padding."""
        each_NCHW = F.conv2d(window_NCHW, self._depthwise, None, self.stride, groups=self.in_channels)
        return self._mix(each_NCHW.contiguous(memory_format=torch.channels_last))
