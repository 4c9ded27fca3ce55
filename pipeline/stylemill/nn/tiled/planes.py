"""Storage of the quarter-resolution feature maps of a large image, in memory or in a scratch file.

A ``Plane`` stores rows. ``PlaneSource`` reads them as the input of the next layer and applies norm, ReLU and residual
while it reads.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from stylemill.errors import ImageError
from stylemill.nn.cpu.measured_norm import MeasuredNorm
from stylemill.nn.cpu.sources import RowStore

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Plane(Protocol):
    """(H, W, C) features, read and written in bands of whole rows."""

    height: int
    width: int
    channels: int

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows [first, last) as (n, W, C); read-only, valid until the next write."""

    def write(self, first: int, rows_HWC: Tensor) -> None:
        """Store rows, from row ``first`` on."""


class MemoryPlane:
    """A plane in memory."""

    def __init__(self, height: int, width: int, channels: int, dtype: torch.dtype) -> None:
        self.height, self.width, self.channels = height, width, channels
        self._rows_HWC = torch.empty((height, width, channels), dtype=dtype)

    def read(self, first: int, last: int) -> Tensor:
        """Return a view of the rows."""
        return self._rows_HWC[first:last]

    def write(self, first: int, rows_HWC: Tensor) -> None:
        """Copy rows in."""
        self._rows_HWC[first : first + len(rows_HWC)] = rows_HWC


class FilePlane:
    """A plane in a section of a scratch file, by plain reads and writes at offsets.

    Not a memory map, whose pages would count as the process's memory. Bands are read in order, so the system
    reads ahead and writes in the background.

    Args:
        descriptor: of the open file.
        offset_bytes: start of the plane.
        height: H.
        width: W.
        channels: C.
        dtype: of the features.
    """

    def __init__(
        self, descriptor: int, offset_bytes: int, height: int, width: int, channels: int, dtype: torch.dtype
    ) -> None:
        self.height, self.width, self.channels = height, width, channels
        self._descriptor, self._offset_bytes, self._dtype = descriptor, offset_bytes, dtype
        self._row_bytes = width * channels * dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Size of the plane in the file."""
        return self.height * self._row_bytes

    def read(self, first: int, last: int) -> Tensor:
        """Read rows into fresh memory."""
        rows_HWC = torch.empty((last - first, self.width, self.channels), dtype=self._dtype)
        view = rows_HWC.view(torch.uint8).numpy().data.cast("B")
        position, end = self._offset_bytes + first * self._row_bytes, 0
        while end < len(view):
            count = os.preadv(self._descriptor, [view[end:]], position + end)
            if count == 0:
                raise OSError(errno.EIO, "the scratch file is shorter than the data written to it")
            end += count
        return rows_HWC

    def write(self, first: int, rows_HWC: Tensor) -> None:
        """Write rows.

        Raises:
            ImageError: ``ScratchFull``, the disk has no space for them.
        """
        view = rows_HWC.contiguous().view(torch.uint8).numpy().data.cast("B")
        position, end = self._offset_bytes + first * self._row_bytes, 0
        while end < len(view):
            try:
                end += os.pwrite(self._descriptor, view[end:], position + end)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                raise ImageError(
                    "ScratchFull",
                    f"the scratch directory has no space for the {self.nbytes / 2**20:.0f} MiB of a feature map"
                    f" ({error.strerror}); raise max_memory, or set TMPDIR to a directory on a larger disk",
                ) from error


@contextmanager
def scratch_file(scratch_dir: str | Path | None) -> Iterator[int]:
    """Open a file without a name, which the system removes however the process ends.

    Args:
        scratch_dir: its directory; None takes the system's directory for temporary files.
    Yields:
        the descriptor.
    """
    with tempfile.TemporaryFile(dir=scratch_dir, buffering=0, prefix="stylemill-") as file:
        yield file.fileno()


@dataclass
class BoundaryRows:
    """Copies of the rows on both sides of the boundaries between threads, made before a thread overwrites them."""

    raw: dict[int, Tensor] = field(default_factory=dict)
    residual: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def copy(cls, boundaries: Iterable[int], raw: Plane, residual: Plane | None) -> BoundaryRows:
        """Copy the row before and the row after every boundary."""
        copies = cls()
        for row in {row for boundary in boundaries for row in (boundary - 1, boundary)}:
            copies.raw[row] = raw.read(row, row + 1).clone()
            if residual is not None:
                copies.residual[row] = residual.read(row, row + 1).clone()
        return copies


class PlaneSource:
    """A stored map as the input of the next layer.

    Args:
        raw: what was stored.
        norm: to apply to it, or None if it is normalised already.
        residual: map to add, or None.
        keep_in: where to store the normalised rows, or None; may be ``residual`` itself.
        own_rows: the rows that this thread stores; others are read from ``boundary`` and are not stored.
        boundary: copies of the rows just outside of ``own_rows``.
    """

    step = 1

    def __init__(
        self,
        raw: Plane,
        *,
        norm: MeasuredNorm | None = None,
        residual: Plane | None = None,
        keep_in: Plane | None = None,
        own_rows: tuple[int, int] | None = None,
        boundary: BoundaryRows | None = None,
    ) -> None:
        self.height, self.width, self.channels = raw.height, raw.width, raw.channels
        self._raw, self._norm, self._residual, self._keep_in = raw, norm, residual, keep_in
        self._own_rows = own_rows or (0, raw.height)
        self._boundary = boundary or BoundaryRows()

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Write normalised rows."""
        own_first, own_last = self._own_rows
        for row in range(first, min(last, own_first)):
            self._write(target, row, self._boundary.raw[row], self._boundary.residual.get(row), own=False)
        start, stop = max(first, own_first), min(last, own_last)
        if start < stop:
            residual = None if self._residual is None else self._residual.read(start, stop)
            self._write(target, start, self._raw.read(start, stop), residual, own=True)
        for row in range(max(first, own_last), last):
            self._write(target, row, self._boundary.raw[row], self._boundary.residual.get(row), own=False)

    def _write(self, target: RowStore, first: int, raw_HWC: Tensor, residual_HWC: Tensor | None, own: bool) -> None:
        out_HWC = target.rows(first, first + len(raw_HWC))
        if self._norm is None:
            out_HWC.copy_(raw_HWC)
        else:
            self._norm.write_rows(raw_HWC, out_HWC, residual_HWC)
        if own and self._keep_in is not None:
            self._keep_in.write(first, out_HWC)


def add_normalised(raw: Plane, norm: MeasuredNorm, residual: Plane, rows_per_band: int) -> None:
    """Add the normalised rows of ``raw`` to ``residual``, band by band."""
    for first in range(0, raw.height, rows_per_band):
        last = min(first + rows_per_band, raw.height)
        raw_HWC = raw.read(first, last)
        sums_HWC = torch.empty_like(raw_HWC)
        norm.write_rows(raw_HWC, sums_HWC, residual.read(first, last))
        residual.write(first, sums_HWC)
