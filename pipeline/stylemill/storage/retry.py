"""The one layer that retries: exponential backoff with full jitter under a total deadline.

How many requests of this process a store gets at once: fewer after a refusal, slowly more while it answers.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from stylemill.errors import StorageError

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0


class _Count:
    """Counts over all threads of this process."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add_one(self) -> None:
        with self._lock:
            self.value += 1


_retries = _Count()


def num_retries() -> int:
    """Return how many operations this process has tried again so far."""
    return _retries.value


class TransientError(Exception):
    """A storage fault that may pass: throttling, a reset, a timeout, a truncated body."""


class Throttled(TransientError):
    """The store asks for fewer requests (429, 503, SlowDown)."""


def with_retries(operation: Callable[[], ResultT], *, what: str, deadline_s: float) -> ResultT:
    """Call ``operation`` until it stops raising TransientError or the deadline passes.

    Args:
        operation: called without arguments; must be safe to repeat.
        what: names the operation and its location in messages.
        deadline_s: seconds from the first call after which no new attempt starts.

    Raises:
        StorageError: the last transient fault, once the deadline has passed.

    Source: "full jitter", Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    start_s = time.monotonic()
    attempt = 0
    while True:
        try:
            return operation()
        except TransientError as error:
            attempt += 1
            delay_s = random.uniform(0, min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 16)))
            spent_s = time.monotonic() - start_s
            if spent_s + delay_s > deadline_s:
                raise StorageError(
                    f"{what} failed {attempt} times in {spent_s:.0f} s, last: {error}; "
                    "run the same command again to resume"
                ) from error
            _retries.add_one()
            log.info("%s: %s; attempt %d follows in %.1f s", what, error, attempt + 1, delay_s)
            time.sleep(delay_s)


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
