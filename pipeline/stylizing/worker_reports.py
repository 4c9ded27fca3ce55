"""What a worker tells the run's tracker, in few calls: each costs both ends half a millisecond."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import ray

from pipeline.stylizing.tracker import Finished

LONGEST_SILENCE_S = 0.5


class WorkerReports:
    """Tells the tracker about finished sources together with the next start, or after a moment of silence.

    Args:
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, tracker: ray.actor.ActorHandle) -> None:
        self._tracker = tracker
        self._finished: deque[Finished] = deque()
        self._last_s = time.monotonic()

    def begin(self, key: str) -> None:
        """Tell that a source is started, before anything of it is painted."""
        self._tracker.begin.remote(key, self._take())

    def finish(self, key: str, statuses: Sequence[str]) -> None:
        """Note that a source is finished; any thread may call this."""
        self._finished.append((key, statuses))
        if time.monotonic() - self._last_s > LONGEST_SILENCE_S:
            self.flush()

    def flush(self) -> None:
        """Tell what is still untold."""
        if finished := self._take():
            self._tracker.finish.remote(finished)

    def _take(self) -> list[Finished]:
        self._last_s = time.monotonic()
        finished = []
        while self._finished:
            try:
                finished.append(self._finished.popleft())
            except IndexError:  # another thread took the last one
                break
        return finished
