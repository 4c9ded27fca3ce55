"""A window that rolls down a feature map, so that no row of it is made twice."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.nn.fast.folded_block import PaddingMode
from pipeline.nn.fast.frame import close_sides
from pipeline.nn.fast.sources import Source


class RollingFrame:
    """The padded rows of a map that a convolution is at, fetched from a source as it moves down.

    Keeps what the next window shares with the last one (the halo) and fetches only what is new. Rows are
    numbered as in the whole map; those of the top border are negative, those of the bottom one follow H.

    Args:
        source: makes the rows, asked for each one once, from the first window on downwards.
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
        """Return the (1, C, num_rows, W + 2p) view of padded rows; ``first`` never goes back.

        Valid until the next call.
        """
        last = first + num_rows
        if self._stop is None or self._stop < last:
            self._fetch(first, last)
        top = first - self._start
        return self._buffer_HWC[top : top + num_rows].permute(2, 0, 1)[None]

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        """Return the (n, W, C) view of the rows ``range(first, last, step)`` between the side borders."""
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
            self._close_sides(fetch_first, fetch_last)
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

    def _close_sides(self, first: int, last: int) -> None:
        band_HWC = self._buffer_HWC[first - self._start : last - self._start]
        close_sides(band_HWC, self._pad, self.source.width, self._mode)

    def _copy_row(self, row: int, original: int) -> None:
        if self._mode == "zeros":
            self._buffer_HWC[row - self._start] = 0
        else:
            self._buffer_HWC[row - self._start] = self._buffer_HWC[original - self._start]
