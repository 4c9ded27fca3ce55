"""Retries of storage operations, and a limit on the requests in flight.

``with_retries`` is the only layer that retries: exponential backoff with full jitter, up to a total deadline.
``Limiter`` adapts the number of concurrent requests of this process to what the store accepts.
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
"""Or a tenth of the deadline, if that is less."""

MOST_REQUESTS = 32
ANSWERS_PER_STEP = 16
"""Successful answers per concurrent request after which the limit grows by one: after throttling it stays low for a
while."""


class TransientError(Exception):
    """A storage fault that may pass: throttling, a reset, a timeout, a truncated body."""


class Throttled(TransientError):
    """The store asks for fewer requests (429, 503, SlowDown)."""


class _Counter:
    """Counts over all threads of this process."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add_one(self) -> None:
        with self._lock:
            self.value += 1


_retries = _Counter()


def num_retries() -> int:
    """Return the number of retries in this process so far."""
    return _retries.value


def with_retries(operation: Callable[[], ResultT], *, what: str, deadline_s: float) -> ResultT:
    """Call ``operation`` until it stops raising TransientError or the deadline passes.

    Args:
        operation: safe to repeat.
        what: the operation and its location, for messages.
        deadline_s: seconds from the first call after which no new attempt starts.

    Raises:
        StorageError: the last transient fault, once the deadline has passed.

    Source: "full jitter", Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    start_s = time.monotonic()
    longest_s = min(LONGEST_DELAY_S, deadline_s / 10)
    attempt = 0
    while True:
        try:
            return operation()
        except TransientError as error:
            attempt += 1
            delay_s = random.uniform(0, min(longest_s, FIRST_DELAY_S * 2 ** min(attempt, 16)))
            spent_s = time.monotonic() - start_s
            if spent_s + delay_s > deadline_s:
                raise StorageError(
                    f"{what} failed {attempt} times in {spent_s:.0f} s, last: {error}; "
                    "run the same command again to resume"
                ) from error
            _retries.add_one()
            log.info("%s: %s; attempt %d starts in %.1f s", what, error, attempt + 1, delay_s)
            time.sleep(delay_s)


class Limiter:
    """Limits concurrent requests by additive increase and multiplicative decrease, as TCP does; thread-safe.

    When the store throttles, the limit becomes half the number of requests in flight; requests that were in flight at
    that moment do not lower it again. The pause before a retry happens outside (see ``with_retries``), so a request
    that waits for its retry does not count.

    Args:
        most_requests: upper limit, and the limit at the start.

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
        """Requests that may be in flight at once."""
        return max(1, int(self._limit))

    def run(self, operation: Callable[[], ResultT]) -> ResultT:
        """Wait until the limit allows one more request, call ``operation`` and adapt the limit to its outcome."""
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
