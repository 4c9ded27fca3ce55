"""Memory that outlives an image, so that the next one does not wait for the kernel to clear pages."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

KEPT_BYTES = 1 << 30
"""Freed buffers beyond this total go back to the system."""


class Workspace:
    """Hands out flat buffers of one dtype and takes them back.

    Fresh pages cost more than anything that is done to them: glibc returns blocks above 32 MiB to the
    system at once, and touching 32 MiB of new pages takes as long as ten passes over old ones.
    """

    def __init__(self, dtype: torch.dtype, kept_bytes: int = KEPT_BYTES) -> None:
        self.dtype = dtype
        self.kept_bytes = kept_bytes
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, num_elements: int) -> Tensor:
        """Return a (>= num_elements,) buffer with any content; not twice as large as asked for."""
        with self._lock:
            fitting = [
                (buffer.numel(), index)
                for index, buffer in enumerate(self._free)
                if num_elements <= buffer.numel() <= 2 * num_elements
            ]
            if fitting:
                return self._free.pop(min(fitting)[1])
        return torch.empty(num_elements, dtype=self.dtype)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for later, unless enough is kept already."""
        with self._lock:
            self._free.append(buffer)
            while sum(kept.nbytes for kept in self._free) > self.kept_bytes:
                self._free.pop(0)
