"""Threads that each run single-threaded operators, and buffers that are reused from image to image.

``ThreadTeam`` makes results independent of the number of threads: no operator divides a sum among threads.
``BufferPool`` avoids that every image waits for the operating system to clear pages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import torch
from torch import Tensor

KEPT_BYTES = 512 << 20
"""Total of free buffers that are kept; the memory of others returns to the system."""


class ThreadTeam:
    """Divides numbered pieces of work among threads; every operator runs on one thread.

    torch's own threads divide one reduction among themselves, so its bits depend on their number. Here one
    thread sums a piece, and the caller merges the pieces in order.

    Args:
        num_threads: number of pieces that run at once; with 1, work runs in the calling thread if torch
            itself is set to one thread.
    Raises:
        ValueError: fewer than one thread.
    """

    def __init__(self, num_threads: int) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None

    def resize(self, num_threads: int) -> None:
        """Change the number of threads between two calls of ``split``."""
        if num_threads != self.num_threads:
            if self._pool is not None:
                self._pool.shutdown()
            self.num_threads, self._pool = num_threads, None

    def ranges(self, num_pieces: int) -> list[tuple[int, int]]:
        """Return the contiguous ranges of pieces that ``split`` assigns to threads, in order."""
        num_ranges = min(self.num_threads, num_pieces)
        return list(pairwise(num_pieces * index // num_ranges for index in range(num_ranges + 1)))

    def split(self, num_pieces: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(first, last)`` over contiguous ranges that cover ``range(num_pieces)``.

        Returns when all calls are done; then raises the first exception, if any.
        """
        if self.num_threads == 1 and torch.get_num_threads() == 1:
            work(0, num_pieces)
            return
        # All work runs in the pool, because the caller's own number of threads must not change.
        if self._pool is None:
            self._pool = self._start()
        futures = [self._pool.submit(_inference, work, first, last) for first, last in self.ranges(num_pieces)]
        for future in futures:
            future.exception()
        for future in futures:
            future.result()

    def _start(self) -> ThreadPoolExecutor:
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.num_threads, "stylize")
        # Without the barrier a fast thread could take two of these calls, and another would never start.
        all_started = Barrier(self.num_threads + 1)
        ready = [pool.submit(_become_single_threaded, all_started) for _ in range(self.num_threads)]
        all_started.wait()
        for future in ready:
            future.result()
        # A worker's call also changes the default of threads started later; restore it for the process.
        torch.set_num_threads(before)
        return pool


def _become_single_threaded(all_started: Barrier) -> None:
    torch.set_num_threads(1)
    # After this call the number is fixed for this thread, whatever other threads set.
    torch.get_num_threads()
    all_started.wait()


@torch.inference_mode()
def _inference(work: Callable[[int, int], None], first: int, last: int) -> None:
    work(first, last)


class BufferPool:
    """Reuses flat byte buffers.

    Fresh pages cost more than the arithmetic on them: glibc returns blocks above 32 MiB to the system at once,
    and touching 32 MiB of new pages takes as long as ten passes over old ones.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> Tensor:
        """Return a uint8 buffer of once to twice that size, with any content."""
        with self._lock:
            fitting = [
                (buffer.numel(), index)
                for index, buffer in enumerate(self._free)
                if num_bytes <= buffer.numel() <= 2 * num_bytes
            ]
            if fitting:
                return self._free.pop(min(fitting)[1])
        return torch.empty(num_bytes, dtype=torch.uint8)

    def put_back(self, buffer: Tensor) -> None:
        """Keep a buffer for reuse; drop the oldest ones above the limit."""
        with self._lock:
            self._free.append(buffer)
            while sum(kept.numel() for kept in self._free) > self._kept_bytes:
                self._free.pop(0)


SHARED_BUFFERS = BufferPool()
"""The pool of the process: a worker with ten styles runs one network at a time."""
