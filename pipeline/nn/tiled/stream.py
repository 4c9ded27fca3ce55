"""Layers that run band by band down the image, each pulling the rows it needs from the one before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.nn.fast.layers import Layer
from pipeline.nn.fast.moments import ChannelStatistics
from pipeline.nn.fast.sources import INTERPOLATION_REACH_PX, RowStore, Source, finish_rows
from pipeline.nn.fast.whole import unfold_columns
from pipeline.nn.tiled.rolling import RollingFrame


class LayerStream:
    """One layer over a source, in bands from top to bottom.

    Args:
        layer: what to convolve with.
        source: the layer's input.
        dtype: of the features.
        statistics: of the layer's whole output; without them the stream gives raw results only.
    """

    def __init__(
        self,
        layer: Layer,
        source: Source,
        dtype: torch.dtype,
        statistics: ChannelStatistics | None = None,
    ) -> None:
        if layer.interpolation is not None:
            source = InterpolatedStream(source, layer.interpolation, dtype)
        self._layer, self._statistics = layer, statistics
        self.frame = RollingFrame(source, layer.padding_px, layer.padding_mode, dtype)
        self.step = layer.scale
        self.num_tap_rows = source.height // layer.stride
        self.height = self.num_tap_rows * layer.scale
        self.width = source.width * layer.scale // layer.stride
        self.channels = layer.out_channels

    def convolve(self, first: int, last: int) -> list[Tensor]:
        """Return the raw results of the tap rows [first, last), one (1, C, n, W) per tap.

        Tap t holds the output rows ``step * row + t``.
        """
        stride = self._layer.stride
        tops = [first * stride + tap.first_row for tap in self._layer.taps]
        counts = [(last - first - 1) * stride + tap.conv.kernel_height for tap in self._layer.taps]
        bottom = max(top + count for top, count in zip(tops, counts, strict=True))
        window_NCHW = self.frame.window(min(tops), bottom - min(tops))
        raws = []
        for tap, top, count in zip(self._layer.taps, tops, counts, strict=True):
            start = top - min(tops)
            raws.append(unfold_columns(tap.conv(window_NCHW[:, :, start : start + count]), self.step))
        return raws

    def write_rows(self, frame: RowStore, first: int, last: int) -> None:
        """Write finished rows (norm, ReLU); whole groups of ``step`` only."""
        if self._statistics is None or self._layer.norm is None:
            raise ValueError("rows cannot be finished before the statistics of the map are known")
        norm, statistics = self._layer.norm, self._statistics
        for tap, raw_NCHW in enumerate(self.convolve(first // self.step, last // self.step)):
            normal_NCHW = norm.apply(raw_NCHW, statistics)
            finish_rows(normal_NCHW, norm.relu, None, frame.rows(first + tap, last, self.step))


class InterpolatedStream:
    """Another source at twice the size, bilinear or bicubic, from top to bottom.

    Args:
        source: the map at low resolution.
        mode: as torch names it; half-pixel centres, borders clamped.
        dtype: of the map.
    """

    step = 2

    def __init__(self, source: Source, mode: str, dtype: torch.dtype) -> None:
        self.height, self.width, self.channels = source.height * 2, source.width * 2, source.channels
        self._low = RollingFrame(source, 0, "reflect", dtype)
        self._mode = mode

    def write_rows(self, frame: RowStore, first: int, last: int) -> None:
        """Interpolate the rows needed from a little more than the low rows under them."""
        low_height = self._low.source.height
        low_first = max(0, first // 2 - INTERPOLATION_REACH_PX)
        low_last = min(low_height, -(-last // 2) + INTERPOLATION_REACH_PX)
        low_NCHW = self._low.window(low_first, low_last - low_first)
        high_NCHW = F.interpolate(low_NCHW, scale_factor=2, mode=self._mode, align_corners=False)
        high_HWC = high_NCHW.permute(0, 2, 3, 1)[0]
        frame.rows(first, last).copy_(high_HWC[first - 2 * low_first : last - 2 * low_first])
