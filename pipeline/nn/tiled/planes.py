"""Where the quarter-resolution feature maps of a large image lie: in memory or in a scratch file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import ImageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Plane(Protocol):
    """(H, W, C) features, read and written in bands of whole rows."""

    height: int
    width: int
    channels: int

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows [first, last) as (n, W, C); to be read only, and before the next write."""

    def write(self, first: int, rows_HWC: Tensor) -> None:
        """Put rows in place, from row ``first`` on."""


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
    """A plane in a part of a scratch file, by plain reads and writes at offsets.

    Not a memory map: its pages would count as the process's memory. The system reads ahead and writes
    behind on its own, since bands follow one another.

    Args:
        descriptor: of the open file.
        offset_bytes: where the plane begins.
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
                raise OSError(errno.EIO, "the scratch file is shorter than what was written to it")
            end += count
        return rows_HWC

    def write(self, first: int, rows_HWC: Tensor) -> None:
        """Write rows.

        Raises:
            ImageError: ``ScratchFull``, the disk has no room for them.
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
                    f"the scratch directory has no room for the {self.nbytes / 2**20:.0f} MiB of a feature map"
                    f" ({error.strerror}); raise max_memory, or let TMPDIR name a larger disk",
                ) from error


@contextmanager
def scratch_file(scratch_dir: str | Path | None) -> Iterator[int]:
    """Open a file that has no name and is gone when the process ends, however it ends.

    Args:
        scratch_dir: where; None takes the system's directory for temporary files.
    Yields:
        its descriptor.
    """
    with tempfile.TemporaryFile(dir=scratch_dir, buffering=0, prefix="stylemill-") as file:
        yield file.fileno()
