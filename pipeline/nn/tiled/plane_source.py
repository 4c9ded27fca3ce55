"""Rows out of a stored feature map, finished while they are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.nn.fast.moments import ChannelStatistics
from pipeline.nn.fast.norm import Norm
from pipeline.nn.fast.sources import RowStore, finish_rows
from pipeline.nn.tiled.planes import Plane


@dataclass(frozen=True)
class Finish:
    """What turns raw rows into the input of the next layer."""

    norm: Norm
    statistics: ChannelStatistics


@dataclass
class Borders:
    """Copies of the rows on both sides of where two threads meet, made before either overwrites them."""

    raw: dict[int, Tensor] = field(default_factory=dict)
    residual: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def copy(cls, cuts: Iterable[int], raw: Plane, residual: Plane | None) -> Borders:
        """Copy row ``cut - 1`` and row ``cut`` for every cut."""
        borders = cls()
        for row in {row for cut in cuts for row in (cut - 1, cut)}:
            borders.raw[row] = raw.read(row, row + 1).clone()
            if residual is not None:
                borders.residual[row] = residual.read(row, row + 1).clone()
        return borders


class PlaneSource:
    """A stored map as the input of the next layer.

    Args:
        raw: what was stored.
        finish: norm to apply to it, or None when it is finished.
        residual: map to add, or None.
        keep_in: where finished rows are kept for later, or None; may be ``residual`` itself.
        own_rows: the rows that this thread may keep; others come from ``borders`` and are not kept.
        borders: copies of the rows just outside of ``own_rows``.
    """

    step = 1

    def __init__(
        self,
        raw: Plane,
        *,
        finish: Finish | None = None,
        residual: Plane | None = None,
        keep_in: Plane | None = None,
        own_rows: tuple[int, int] | None = None,
        borders: Borders | None = None,
    ) -> None:
        self.height, self.width, self.channels = raw.height, raw.width, raw.channels
        self._raw, self._finish, self._residual, self._keep_in = raw, finish, residual, keep_in
        self._own_rows = own_rows or (0, raw.height)
        self._borders = borders or Borders()

    def write_rows(self, frame: RowStore, first: int, last: int) -> None:
        """Write finished rows."""
        own_first, own_last = self._own_rows
        for row in range(first, min(last, own_first)):
            self._write(frame, row, self._borders.raw[row], self._borders.residual.get(row), own=False)
        start, stop = max(first, own_first), min(last, own_last)
        if start < stop:
            residual = None if self._residual is None else self._residual.read(start, stop)
            self._write(frame, start, self._raw.read(start, stop), residual, own=True)
        for row in range(max(first, own_last), last):
            self._write(frame, row, self._borders.raw[row], self._borders.residual.get(row), own=False)

    def _write(self, frame: RowStore, first: int, raw_HWC: Tensor, residual_HWC: Tensor | None, own: bool) -> None:
        out_HWC = frame.rows(first, first + len(raw_HWC))
        if self._finish is None:
            out_HWC.copy_(raw_HWC)
        else:
            norm, statistics = self._finish.norm, self._finish.statistics
            raw_NCHW = raw_HWC.permute(2, 0, 1)[None]
            normal_NCHW = norm.apply(raw_NCHW, statistics)
            finish_rows(normal_NCHW, norm.relu, residual_HWC, out_HWC)
        if own and self._keep_in is not None:
            self._keep_in.write(first, out_HWC)


def finish_in_place(raw: Plane, finish: Finish, residual: Plane, rows_per_band: int) -> None:
    """Add the normalised rows of ``raw`` to ``residual``, band by band."""
    norm, statistics = finish.norm, finish.statistics
    for first in range(0, raw.height, rows_per_band):
        last = min(first + rows_per_band, raw.height)
        raw_NCHW = raw.read(first, last).permute(2, 0, 1)[None]
        normal_NCHW = norm.apply(raw_NCHW, statistics)
        residual.write(first, torch.add(normal_NCHW.permute(0, 2, 3, 1)[0], residual.read(first, last)))
