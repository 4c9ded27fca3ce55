"""Memory that outlives an image, so that the next one does not wait for the kernel to clear pages."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

KEPT_BYTES = 512 << 20
"""Freed buffers beyond this total go back to the system."""


class Workspace:
    """Hands out flat byte buffers and takes them back.

    Fresh pages cost more than anything that is done to them: glibc returns blocks above 32 MiB to the
    system at once, and touching 32 MiB of new pages takes as long as ten passes over old ones.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> Tensor:
        """Return an uint8 buffer of at least that size, and at most twice it, with any content."""
        with self._lock:
            fitting = [
                (buffer.numel(), index)
                for index, buffer in enumerate(self._free)
                if num_bytes <= buffer.numel() <= 2 * num_bytes
            ]
            if fitting:
                return self._free.pop(min(fitting)[1])
        return torch.empty(num_bytes, dtype=torch.uint8)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for later; the oldest go when too much is kept."""
        with self._lock:
            self._free.append(buffer)
            while sum(kept.numel() for kept in self._free) > self._kept_bytes:
                self._free.pop(0)


SHARED = Workspace()
"""One for the process: a worker with ten styles runs one network at a time."""
