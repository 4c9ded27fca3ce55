"""Threads that each run single-threaded operators, so that the order of every sum is fixed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import torch


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
