"""A memory file mapped by two processes, mapped again only when it has grown."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
from typing import Final

_STEP_BYTES: Final = 1 << 20


class SharedMemory:
    """One process's view of a memory file that only ever grows."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory: mmap.mmap | None = None

    def grow(self, num_bytes: int) -> mmap.mmap:
        """Return the memory, made large enough."""
        if os.fstat(self._fd).st_size < num_bytes:
            os.ftruncate(self._fd, -(-num_bytes // _STEP_BYTES) * _STEP_BYTES)
        return self.view(num_bytes)

    def view(self, num_bytes: int) -> mmap.mmap:
        """Return the memory.

        Raises:
            ValueError: the other process has not made it that large.
        """
        if self._memory is None or len(self._memory) < num_bytes:
            size = os.fstat(self._fd).st_size
            if size < num_bytes:
                raise ValueError(f"{num_bytes} bytes announced, {size} delivered")
            self._memory = mmap.mmap(self._fd, size)
        return self._memory

    def forget(self) -> None:
        """Give the pages back to the machine; the file keeps its size and reads as zeros."""
        if self._memory is not None and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_REMOVE)


def memory_file(name: str) -> int:
    """Return the number of a new file that has no name in any folder and, on Linux, lives in memory alone."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def seal_against_shrinking(fd: int) -> None:
    """See to it that no process can pull away memory that another one is reading (Linux)."""
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
