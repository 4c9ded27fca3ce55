"""One zero-CPU actor per run that knows what is being painted: live counts, and which image killed its worker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import ray


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, as far as this invocation knows."""

    num_sources: int
    """Sources of the plan as far as it stands."""
    num_resumed: int
    """Sources that earlier invocations finished."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows finished by this invocation, by status."""
    num_finished: int = 0
    """Sources finished by this invocation."""
    busy_s: float = 0.0
    """From the first image started to the last one written."""

    @property
    def images_per_s(self) -> float:
        """Sources finished per second of ``busy_s``."""
        return self.num_finished / self.busy_s if self.busy_s else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the rate so far, or None while there is none."""
        left = self.num_sources - self.num_resumed - self.num_finished
        return left / self.images_per_s if self.images_per_s else None


Finished = tuple[str, Sequence[str]]
"""A source's key and the statuses of its rows."""


class RunTracker:
    """Counts finished sources, and remembers starts without a finish: those died with their worker."""

    def __init__(self) -> None:
        self._unfinished: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._num_finished = 0
        self._first_s: float | None = None
        self._last_s = 0.0

    def begin(self, key: str, finished: Sequence[Finished] = ()) -> None:
        """Note that a worker starts on a source, and what it has finished since it last called."""
        self.finish(finished)
        self._first_s = self._first_s or time.monotonic()
        self._unfinished[key] += 1

    def finish(self, finished: Sequence[Finished]) -> None:
        """Note sources whose images are written, each with the statuses of its rows."""
        for key, statuses in finished:
            self._unfinished.pop(key, None)
            self._counts.update(statuses)
            self._num_finished += 1
            self._last_s = time.monotonic()

    def survived(self, keys: Sequence[str]) -> None:
        """Note that a worker has painted these sources and lives; others will write them."""
        for key in keys:
            self._unfinished.pop(key, None)

    def unfinished(self, keys: Sequence[str]) -> dict[str, int]:
        """Return how often each of these sources was started without being finished."""
        return {key: self._unfinished[key] for key in keys if key in self._unfinished}

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return finished sources, rows by status, and seconds from the first start to the last finish."""
        busy_s = self._last_s - self._first_s if self._first_s and self._num_finished else 0.0
        return self._num_finished, dict(self._counts), busy_s


def start_tracker() -> ray.actor.ActorHandle:
    """Start the tracker of one run; it ends with the driver."""
    return ray.remote(RunTracker).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
