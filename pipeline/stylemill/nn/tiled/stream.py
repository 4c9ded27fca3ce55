"""Layers that run band by band from top to bottom, each reading the rows it needs from the layer before.

``RowWindow`` keeps the rows that consecutive bands of a layer share, so that no row is computed twice in a pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics
from stylemill.nn.cpu.folding import PaddingMode
from stylemill.nn.cpu.layers import Layer
from stylemill.nn.cpu.measured_norm import MeasuredNorm
from stylemill.nn.cpu.padded_map import fill_sides
from stylemill.nn.cpu.sources import InterpolatedSource, RowStore, Source


class RowWindow:
    """The padded rows of a map that a convolution currently reads, moving from top to bottom.

    Keeps the rows that a window shares with the one before (the halo) and reads only new ones from the source. Rows are
    numbered as in the whole map: the top border has negative numbers, the bottom border starts at H.

    Args:
        source: of the rows; each is read once, in order from the first window on.
        padding_px: p, the border around the whole map.
        mode: how the border continues the map.
        dtype: of the rows.
    """

    def __init__(self, source: Source, padding_px: int, mode: PaddingMode, dtype: torch.dtype) -> None:
        self.source = source
        self._pad, self._mode = padding_px, mode
        self._row_shape = (source.width + 2 * padding_px, source.channels)
        self._buffer_HWC = torch.empty((0, *self._row_shape), dtype=dtype)
        self._start = 0
        """Number of the row at the top of the buffer."""
        self._stop: int | None = None
        """Number of the row after the last one in the buffer; None before the first window."""

    def window(self, first: int, num_rows: int) -> Tensor:
        """Return the (1, C, num_rows, W + 2p) view of padded rows; ``first`` never decreases.

        Valid until the next call.
        """
        last = first + num_rows
        if self._stop is None or self._stop < last:
            self._fetch(first, last)
        top = first - self._start
        return self._buffer_HWC[top : top + num_rows].permute(2, 0, 1)[None]

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        """Return the (n, W, C) view of the rows ``range(first, last, step)`` without the side borders."""
        pad, width = self._pad, self.source.width
        return self._buffer_HWC[first - self._start : last - self._start : step, pad : pad + width]

    def _fetch(self, first: int, last: int) -> None:
        height, step = self.source.height, self.source.step
        if self._stop is None:
            fetch_first = max(0, first) // step * step
            self._start = self._stop = min(first, fetch_first)
        else:
            fetch_first = max(0, self._stop)
        fetch_last = max(fetch_first, min(height, -(-last // step) * step))
        self._make_room(first, max(last, fetch_last))
        if fetch_first < fetch_last:
            self.source.write_rows(self, fetch_first, fetch_last)
            self._fill_sides(fetch_first, fetch_last)
        self._stop = max(last, fetch_last)
        for row in range(self._start, 0):
            self._copy_row(row, -row if self._mode == "reflect" else 0)
        for row in range(max(height, fetch_last), last):
            self._copy_row(row, 2 * (height - 1) - row if self._mode == "reflect" else height - 1)

    def _make_room(self, first: int, last: int) -> None:
        """Move the rows from ``first`` on to the top of a buffer that reaches to row ``last``."""
        stop = self._start if self._stop is None else self._stop
        start = max(self._start, min(first, stop))
        kept_HWC = self._buffer_HWC[start - self._start : stop - self._start]
        if last - start > len(self._buffer_HWC):
            grown_HWC = torch.empty((last - start, *self._row_shape), dtype=self._buffer_HWC.dtype)
            grown_HWC[: len(kept_HWC)] = kept_HWC
            self._buffer_HWC = grown_HWC
        elif start > self._start:
            apart = len(kept_HWC) <= start - self._start
            self._buffer_HWC[: len(kept_HWC)] = kept_HWC if apart else kept_HWC.clone()
        self._start = start

    def _fill_sides(self, first: int, last: int) -> None:
        band_HWC = self._buffer_HWC[first - self._start : last - self._start]
        fill_sides(band_HWC, self._pad, self.source.width, self._mode)

    def _copy_row(self, row: int, original: int) -> None:
        if self._mode == "zeros":
            self._buffer_HWC[row - self._start] = 0
        else:
            self._buffer_HWC[row - self._start] = self._buffer_HWC[original - self._start]


class LayerStream:
    """One layer over a source, in bands from top to bottom.

    Args:
        layer: what to convolve with.
        source: the layer's input.
        dtype: of the features.
        statistics: of the layer's whole output; without them only ``convolve`` works.
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
        self._layer = layer
        self._norm: MeasuredNorm | None = None
        if statistics is not None and layer.norm is not None:
            self._norm = MeasuredNorm(layer.norm, statistics)
        self._window = RowWindow(source, layer.padding_px, layer.padding_mode, dtype)
        conv = layer.conv
        self.num_phase_rows = source.height // conv.stride
        self.height = self.num_phase_rows * conv.scale
        self.width = source.width * conv.scale // conv.stride
        self.channels = conv.out_channels
        self.step = layer.whole_groups(1, self.width) * conv.scale

    def convolve(self, first: int, last: int) -> list[Tensor]:
        """Return the raw results of the phase rows [first, last), one (1, C, n, W) per phase.

        Phase t holds the output rows ``scale * row + t``; the rows are whole groups, or end with the map.
        """
        return self._layer.conv(self._window.window(*self._layer.input_rows(first, last)))

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Write rows after norm and ReLU; whole groups of ``step``, or up to the end of the map."""
        if self._norm is None:
            raise ValueError("rows cannot be normalised without the statistics of the map")
        scale = self._layer.conv.scale
        for phase, raw_NCHW in enumerate(self.convolve(first // scale, last // scale)):
            self._norm.write_rows(raw_NCHW[0].permute(1, 2, 0), target.rows(first + phase, last, scale))


class InterpolatedStream(InterpolatedSource):
    """An ``InterpolatedSource`` that is read from top to bottom and keeps the low-resolution rows that calls share."""

    def __init__(self, source: Source, mode: str, dtype: torch.dtype) -> None:
        super().__init__(source, mode, dtype)
        self._window = RowWindow(source, 0, "reflect", dtype)

    def _low_rows(self, first: int, last: int) -> Tensor:
        return self._window.window(first, last - first)
