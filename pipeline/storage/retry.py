"""The one layer that retries: exponential backoff with full jitter under a total deadline."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import StorageError

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
