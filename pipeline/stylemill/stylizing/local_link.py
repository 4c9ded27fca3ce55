"""What a worker of ``local_workers`` and its driver tell each other.

The driver sends one ``BulkJob`` and then one ``Order`` at a time. The worker answers with what happened, as
tuples whose first entry is one of the names below. Both sides import this file, so it imports little.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from stylemill.errors import StylemillError
from stylemill.stylizing.liveness import Finished

BEGIN = "begin"
"""A source is started: ``RunTracker.begin`` with its arguments."""
FINISH = "finish"
"""Sources are finished: ``RunTracker.finish`` with its arguments."""
STUCK = "stuck"
"""The worker ends itself: ``RunTracker.stuck`` with its arguments."""
DONE = "done"
"""The block is done."""
FAILED = "failed"
"""The block cannot be done: a ``Failure``, which ends the run. The worker ends."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One block, with what the run's tracker knows of its sources: nobody else paints them meanwhile."""

    block: pa.Table
    """As ``blocks.make_blocks`` returns it."""
    is_repeated: bool
    """``RunTracker.start_block`` of this block."""
    unfinished: dict[str, int]
    """``RunTracker.unfinished`` of the block's keys."""
    limits_of_stuck: dict[str, float]
    """``RunTracker.limits_of_stuck`` of the block's keys."""


class WorkerTraceback(Exception):
    """The cause of an exception that a worker raised: the text of its traceback there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception on its way from a worker to the driver."""

    pickled: bytes
    """Of the exception; of a RuntimeError that names it, if it cannot be read back."""
    traceback: str
    """Text; empty for a StylemillError, whose message says all."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Pack what a worker raised."""
        text = "".join(traceback.format_exception(error))
        pickled = _pickled(error)
        if pickled is None:
            last = "".join(traceback.format_exception_only(error)).strip()
            return cls(pickled=pickle.dumps(RuntimeError(f"a worker process failed: {last}")), traceback=text)
        return cls(pickled=pickled, traceback="" if isinstance(error, StylemillError) else text)

    def exception(self) -> Exception:
        """Return the exception, to be raised in the driver; the traceback is its cause."""
        error: Exception = pickle.loads(self.pickled)  # noqa: S301 (from this run's own worker)
        if self.traceback:
            error.__cause__ = WorkerTraceback(self.traceback)
        return error


def _pickled(error: Exception) -> bytes | None:
    """Return an exception as bytes; None if it cannot be pickled or read back as what it is."""
    try:
        pickled = pickle.dumps(error)
        is_same = type(pickle.loads(pickled)) is type(error)  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (both run the code of whatever class it is)
        return None
    return pickled if is_same else None


class LinkTracker:
    """The ``liveness.Tracker`` of a local worker.

    What it has sent arrives even if the process is killed right after: it is in the socket.

    Args:
        connection: to the driver.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._order: Order | None = None

    def take(self, order: Order) -> pa.Table:
        """Answer from this order from now on; return its block."""
        self._order = order
        return order.block

    def send(self, name: str, *arguments: Any) -> None:
        """Send one message; any thread may call this.

        Raises:
            OSError: the driver is gone.
        """
        with self._sending:
            self._connection.send((name, *arguments))

    def start_block(self, key: str) -> bool:
        """Return ``RunTracker.start_block``, which the driver calls when it sends the block."""
        assert self._order is not None
        return self._order.is_repeated

    def end_block(self, key: str) -> None:
        """Do nothing: ``DONE`` says it."""

    def begin(self, key: str, finished: Sequence[Finished]) -> None:
        """Send ``RunTracker.begin``."""
        self.send(BEGIN, key, finished)

    def finish(self, finished: Sequence[Finished]) -> None:
        """Send ``RunTracker.finish``."""
        self.send(FINISH, finished)

    def stuck(self, key: str, limit_s: float) -> None:
        """Send ``RunTracker.stuck``."""
        self.send(STUCK, key, limit_s)

    def unfinished(self, keys: Sequence[str]) -> dict[str, int]:
        """Return ``RunTracker.unfinished`` as it was when the block was sent."""
        assert self._order is not None
        return {key: self._order.unfinished[key] for key in keys if key in self._order.unfinished}

    def limits_of_stuck(self, keys: Sequence[str]) -> dict[str, float]:
        """Return ``RunTracker.limits_of_stuck`` as it was when the block was sent."""
        assert self._order is not None
        return {key: self._order.limits_of_stuck[key] for key in keys if key in self._order.limits_of_stuck}
