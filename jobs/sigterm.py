"""SIGTERM, as `jobs stop`, ending pods and preempted machines send it, ends a verb in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as shells have it."""


@contextmanager
def unwinding_on_sigterm() -> Iterator[threading.Event]:
    """While the body runs, let SIGTERM raise KeyboardInterrupt in the main thread, so that leases are given back.

    It is KeyboardInterrupt because that is what Ray's blocking calls pass on. Later signals are ignored: the first one
    has told.

    Yields:
        An event that is set if a KeyboardInterrupt comes from SIGTERM.
    """
    told = threading.Event()

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        told.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield told  # Python delivers signals to the main thread alone
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Put what SIGTERM does now back after the body, which may change it: ``ray.init`` does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
