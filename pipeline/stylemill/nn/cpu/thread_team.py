"""Threads that each run single-threaded operators, so that the order of every sum is fixed.

Memory that outlives an image, so that the next one does not wait for the kernel to clear pages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import torch
from torch import Tensor


class Team:
    """Splits numbered pieces of work over threads; every operator within runs on one thread.

    torch's own threads split one reduction among themselves, so its bits depend on their number. Here a
    piece is always summed by one thread, and the caller merges pieces in their order.

    Args:
        num_threads: how many pieces run at once; 1 works in the calling thread.
    """

    def __init__(self, num_threads: int) -> None:
        if num_threads < 1:
            raise ValueError(f"a team has at least one thread, got {num_threads}")
        self.num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None

    def ranges(self, num_pieces: int) -> list[tuple[int, int]]:
        """Return the contiguous ranges that ``split`` hands out, in order."""
        num_ranges = min(self.num_threads, num_pieces)
        return list(pairwise(num_pieces * index // num_ranges for index in range(num_ranges + 1)))

    def split(self, num_pieces: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(first, last)`` over contiguous ranges that cover ``range(num_pieces)``.

        Returns when all are done; the first exception of any is raised then.
        """
        if self.num_threads == 1 and torch.get_num_threads() == 1:
            work(0, num_pieces)
            return
        # The work runs in the pool alone: the caller's own number of threads is not to be touched.
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
        # The barrier makes the pool start every thread, instead of giving a quick one two of these calls.
        all_started = Barrier(self.num_threads + 1)
        ready = [pool.submit(_become_single_threaded, all_started) for _ in range(self.num_threads)]
        all_started.wait()
        for future in ready:
            future.result()
        # A worker's call also changes what threads to come inherit; undo that for the rest of the process.
        torch.set_num_threads(before)
        return pool


def _become_single_threaded(all_started: Barrier) -> None:
    torch.set_num_threads(1)
    # Asked for once, the number is this thread's own from then on, whatever others set.
    torch.get_num_threads()
    all_started.wait()


@torch.inference_mode()
def _inference(work: Callable[[int, int], None], first: int, last: int) -> None:
    work(first, last)


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
