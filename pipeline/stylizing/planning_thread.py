"""Planning in the background, so that painting starts before the listing ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

Shard = tuple[int, int]
"""Number of a plan shard and its rows."""


class PlanningThread:
    """Drains an iterable of shards in a thread and hands them out as they come.

    Args:
        shards: yields each shard when it stands in storage; what it raises is raised by ``take``.
    """

    def __init__(self, shards: Callable[[], Iterable[Shard]]) -> None:
        self._queue: SimpleQueue[Shard | BaseException | None] = SimpleQueue()
        self._make = shards
        self._stopped = threading.Event()
        self._ended = False
        self.num_sources = 0
        """Sources planned so far."""
        self._thread = threading.Thread(target=self._drain, name="planner", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        try:
            for shard in self._make():
                if self._stopped.is_set():
                    return
                self.num_sources += shard[1]
                self._queue.put(shard)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by take, in the thread that waits)
            self._queue.put(error)

    def take(self, at_most: int) -> list[Shard]:
        """Wait for the next shards and return those that are there; an empty list once planning has ended."""
        taken: list[Shard] = []
        while len(taken) < at_most and not self._ended:
            try:
                item = self._queue.get(block=not taken)
            except Empty:
                break
            if item is None:
                self._ended = True
            elif isinstance(item, BaseException):
                raise item
            else:
                taken.append(item)
        return taken

    def stop(self) -> None:
        """End planning after the shard in hand; the next start continues after it."""
        self._stopped.set()
        self._thread.join()
