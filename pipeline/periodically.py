"""Doing something again and again beside the main work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def periodically(action: Callable[[], None], period_s: float) -> Iterator[None]:
    """Call ``action`` from a thread of its own while the body runs, and once more, from here, after it.

    Args:
        action: never runs twice at the same time.
        period_s: pause between the calls.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(period_s):
            action()

    thread = threading.Thread(target=repeat, name="periodically", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    action()
