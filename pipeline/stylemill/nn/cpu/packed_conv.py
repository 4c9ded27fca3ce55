"""Convolutions on a CPU whose weights are reordered once, at construction, for the kernels of this machine.

oneDNN computes wrong results for a few shapes and is slow for others. ``PackedConv`` tests its kernel against float32
before it uses it, and splits very wide results into column ranges. ``packed_conv`` returns the one that exists already
if another network of this process has the same weights, as the styles of one network have.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from stylemill.nn.cpu.sharing import shared
from stylemill.nn.cpu.thread_team import ThreadTeam

log = logging.getLogger(__name__)

_ANY_SIDE_PX = 64
"""Side of the input for which oneDNN chooses the layout of the weights; others work as well."""

_TRIAL_COLUMNS = (40, 96, 320)
"""Widths of the results that a trial computes: oneDNN chooses other kernels above 50 and above 255 columns."""
_TRIAL_ROWS = 5
MAX_COLUMNS = 10_240
"""Wider results of few input channels are computed in column ranges.

Beyond some 10,700 columns oneDNN 3.12 finds no good blocks for many widths when there are 3 input channels: a
row of 12,248 took 25 times as long as one of 11,008.
"""

_SAFE_CHANNELS = 16
"""Input channels from which results of any width are fast."""

_TRIAL_TOLERANCE = 0.05
"""Largest error relative to the largest result; rounding to bfloat16 causes 0.004, a wrong kernel 1."""


class PackedConv:
    """An unpadded convolution of channels-last batches on a CPU.

    Where torch has oneDNN, the weights are reordered at construction instead of at every call; elsewhere the
    plain operator runs. Every kernel is first compared with float32. If it fails, ``trusted`` is False and the
    convolution is computed in float32 and rounded.

    Args:
        weight_OIHW: (O, I, kH, kW) float32.
        bias_O: (O,) float32, or None.
        stride: vertical and horizontal.
        dtype: float32 or bfloat16, of weights, input and output; accumulated in float32.
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
        self.trusted = self._passes_trial(weight_OIHW)
        if not self.trusted:
            self._exact_weight = weight_OIHW.detach().to(dtype).float()

    def _passes_trial(self, weight_OIHW: Tensor) -> bool:
        """Compare small convolutions with float32, on one thread and at the widths for which kernels differ.

        oneDNN 3.12 returns wrong results for some shapes on AMX: bfloat16, 16 or 24 input channels, kernels
        12 wide at stride 4. Other versions may have other such shapes; the comparison finds them.
        """
        if self._weight.dtype == torch.float32:
            return True
        weight = weight_OIHW.detach().to(self._weight.dtype).float()
        verdicts: list[bool] = []
        try:
            ThreadTeam(1).split(1, lambda *_: verdicts.append(self._is_right(weight)))
        except RuntimeError as error:
            log.warning("oneDNN has no kernel for a convolution of %s: %s", self._shape(), error)
            return False
        return verdicts == [True]

    @torch.inference_mode()
    def _is_right(self, weight_OIHW: Tensor) -> bool:
        bias = None if self.bias_O is None else self.bias_O.float()
        for columns in _TRIAL_COLUMNS:
            width = (columns - 1) * self.stride[1] + self.kernel_width
            height = (_TRIAL_ROWS - 1) * self.stride[0] + self.kernel_height
            values = torch.linspace(-1, 1, height * width * self.in_channels).mul(997).sin()
            window_NHWC = values.view(1, height, width, self.in_channels).to(self._weight.dtype)
            window_NCHW = window_NHWC.permute(0, 3, 1, 2)
            wanted_NCHW = F.conv2d(window_NCHW.float(), weight_OIHW, bias, self.stride)
            limit = _TRIAL_TOLERANCE * wanted_NCHW.abs().max()
            for _ in range(2):
                # A kernel that leaves out a part of its result must not find an earlier, correct one there.
                dirt = [torch.full(wanted_NCHW.shape, torch.nan, dtype=window_NHWC.dtype) for _ in range(4)]
                del dirt
                # Not a maximum, which could hide NaN.
                if not ((self._run(window_NCHW).float() - wanted_NCHW).abs() <= limit).all():
                    return False
        return True

    def describe(self) -> str:
        """Return shape and stride, and whether the kernel was replaced: ``16 to 32, 3x3/2x2, replaced``."""
        return self._shape() + ", replaced" * (not self.trusted)

    def _shape(self) -> str:
        channels = f"{self.in_channels} to {self.out_channels}"
        return f"{channels}, {self.kernel_height}x{self.kernel_width}/{self.stride[0]}x{self.stride[1]}"

    def __call__(self, window_NCHW: Tensor) -> Tensor:
        """Convolve (N, I, H, W) channels-last to (N, O, H', W') channels-last without padding."""
        if not self.trusted:
            bias = None if self.bias_O is None else self.bias_O.float()
            out_NCHW = F.conv2d(window_NCHW.float(), self._exact_weight, bias, self.stride)
            return out_NCHW.to(window_NCHW.dtype, memory_format=torch.channels_last)
        columns = (window_NCHW.shape[3] - self.kernel_width) // self.stride[1] + 1
        if columns > MAX_COLUMNS and self.in_channels < _SAFE_CHANNELS:
            return self._run_in_ranges(window_NCHW, columns)
        return self._run(window_NCHW)

    def _run_in_ranges(self, window_NCHW: Tensor, columns: int) -> Tensor:
        batch, _, height, _ = window_NCHW.shape
        size = batch, self.out_channels, (height - self.kernel_height) // self.stride[0] + 1, columns
        out_NCHW = torch.empty(size, dtype=window_NCHW.dtype, memory_format=torch.channels_last)
        # Equal ranges, because kernels are slow on a range of few columns.
        step = -(-columns // -(-columns // MAX_COLUMNS))
        for first in range(0, columns, step):
            last = min(first + step, columns)
            left, right = first * self.stride[1], (last - 1) * self.stride[1] + self.kernel_width
            dense_NCHW = window_NCHW[..., left:right].contiguous(memory_format=torch.channels_last)
            out_NCHW[..., first:last] = self._run(dense_NCHW)
        return out_NCHW

    def _run(self, window_NCHW: Tensor) -> Tensor:
        if not self._packed:
            plain_NCHW = F.conv2d(window_NCHW, self._weight, self.bias_O, self.stride)
            return plain_NCHW.contiguous(memory_format=torch.channels_last)
        out_NCHW: Tensor = torch.ops.mkldnn._convolution_pointwise(
            window_NCHW, self._weight, self.bias_O, (0, 0), self.stride, (1, 1), 1, "none", (), ""
        )
        return out_NCHW


def packed_conv(
    weight_OIHW: Tensor, bias_O: Tensor | None, *, stride: tuple[int, int] = (1, 1), dtype: torch.dtype
) -> PackedConv:
    """Return a ``PackedConv`` of these arguments, shared by all that ask for the same weights."""
    key = (PackedConv, stride, dtype)
    return shared((weight_OIHW, bias_O), key, lambda: PackedConv(weight_OIHW, bias_O, stride=stride, dtype=dtype))


class SeparableConv:
    """A depthwise convolution, then a packed 1x1 one; the same interface as ``PackedConv``.

    Args:
        depthwise_I1HW: (I, 1, kH, kW) float32.
        weight_OIHW: (O, I, 1, 1) float32.
        stride: vertical and horizontal.
        dtype: float32 or bfloat16, of weights, input, output and intermediate map.
    """

    def __init__(
        self, depthwise_I1HW: Tensor, weight_OIHW: Tensor, *, stride: tuple[int, int], dtype: torch.dtype
    ) -> None:
        self.in_channels, _, self.kernel_height, self.kernel_width = depthwise_I1HW.shape
        self.out_channels = len(weight_OIHW)
        self.stride = stride
        self._depthwise = depthwise_I1HW.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self._mix = packed_conv(weight_OIHW, None, dtype=dtype)

    def describe(self) -> str:
        """Return the description of the packed 1x1 convolution."""
        return self._mix.describe()

    def __call__(self, window_NCHW: Tensor) -> Tensor:
        """Convolve (N, I, H, W) channels-last to (N, O, H', W') channels-last without padding."""
        depthwise_NCHW = F.conv2d(window_NCHW, self._depthwise, None, self.stride, groups=self.in_channels)
        return self._mix(depthwise_NCHW.contiguous(memory_format=torch.channels_last))
