"""How many requests of this process a store gets at once: fewer after a refusal, slowly more while it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pipeline.storage.retry import Throttled

ResultT = TypeVar("ResultT")

MOST_REQUESTS = 32
ANSWERS_PER_STEP = 16
"""Answers per place after which there is one place more: a store that throttles stays narrow for a while."""


class Limiter:
    """Additive increase, multiplicative decrease, as in TCP; safe to use from many threads.

    A refusal halves the number of requests that were under way, once for all of those that were under way together.
    The wait before a repeat is not the limiter's (see ``with_retries``): nobody waits while holding a place.

    Args:
        most_requests: at once, at most and at first.

    Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989.
    """

    def __init__(self, most_requests: int = MOST_REQUESTS) -> None:
        self._most = float(most_requests)
        self._limit = self._most
        self._in_flight = 0
        self._num_begun = 0
        self._begun_at_decrease = 0
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be under way at once."""
        return max(1, int(self._limit))

    def run(self, operation: Callable[[], ResultT]) -> ResultT:
        """Wait for a place, call ``operation`` and learn from how it ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight < self.limit)
            self._in_flight += 1
            self._num_begun += 1
            begun = self._num_begun
        change = 0.0
        try:
            result = operation()
            change = 1.0
            return result
        except Throttled:
            change = -1.0
            raise
        finally:
            self._end(begun, change)

    def _end(self, begun: int, change: float) -> None:
        with self._changed:
            if change > 0:
                self._limit = min(self._most, self._limit + 1 / (ANSWERS_PER_STEP * self._limit))
            elif change < 0 and begun > self._begun_at_decrease:
                self._limit = max(1.0, min(self._limit, self._in_flight) / 2)
                self._begun_at_decrease = self._num_begun
            self._in_flight -= 1
            self._changed.notify_all()
