"""Tracks a run while its workers paint: progress, unfinished sources and metrics.

A worker is a process that reads, paints or writes: an actor of Ray, or a process of ``local_workers``. A run has one
``RunTracker``, to which workers report each source that they start or finish. A source that was started and not
finished was being painted when its worker died.

In order: the tracker, the workers' reports to it, and the metrics, whose names ``infra/observability`` uses. The
tracker's actor and the driver of a local run import this file, so it imports little, and not Ray.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stylemill.meter import SECONDS, Meter, TotalCounter
from stylemill.storage.retry import num_retries

MAX_REPORT_DELAY_S = 0.5
"""A finished source is reported with the next start, or alone when the last report is older than this."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of one invocation of a run."""

    num_sources: int
    """Sources planned so far."""
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
        """Estimate from the rate so far, or None before the first source is finished."""
        left = self.num_sources - self.num_resumed - self.num_finished
        return left / self.images_per_s if self.images_per_s else None


Finished = tuple[str, Sequence[str]]
"""A source's key and the statuses of its rows."""


class RunTracker:
    """Counts finished sources and records which sources were started but not finished."""

    def __init__(self) -> None:
        self._blocks: set[str] = set()
        self._unfinished: Counter[str] = Counter()
        self._stuck_s: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._num_finished = 0
        self._first_s: float | None = None
        self._last_s = 0.0

    def start_block(self, key: str) -> bool:
        """Record that a worker starts the block whose first source this is; return whether one died in it before."""
        is_repeated = key in self._blocks
        self._blocks.add(key)
        return is_repeated

    def end_block(self, key: str) -> None:
        """Record that the block whose first source this is was done."""
        self._blocks.discard(key)

    def begin(self, key: str, finished: Sequence[Finished] = ()) -> None:
        """Record that a worker starts a source, and what it has finished since its last call."""
        self.finish(finished)
        self._first_s = self._first_s or time.monotonic()
        self._unfinished[key] += 1

    def finish(self, finished: Sequence[Finished]) -> None:
        """Record sources whose images are written, each with the statuses of its rows."""
        for key, statuses in finished:
            self._unfinished.pop(key, None)
            self._counts.update(statuses)
            self._num_finished += 1
            self._last_s = time.monotonic()

    def painted(self, keys: Sequence[str]) -> None:
        """Record that a worker survived painting these sources; other workers write them."""
        for key in keys:
            self._unfinished.pop(key, None)

    def unfinished(self, keys: Sequence[str]) -> dict[str, int]:
        """Return how often each of these sources was started without being finished."""
        return {key: self._unfinished[key] for key in keys if key in self._unfinished}

    def stuck(self, key: str, limit_s: float) -> None:
        """Record that a worker ends itself because painting this source took longer than ``limit_s``."""
        self._stuck_s[key] = limit_s

    def limits_of_stuck(self, keys: Sequence[str]) -> dict[str, float]:
        """Return the limits in seconds that those of these sources exceeded that were stuck."""
        return {key: self._stuck_s[key] for key in keys if key in self._stuck_s}

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return finished sources, rows by status, and seconds from the first start to the last finish."""
        busy_s = self._last_s - self._first_s if self._first_s and self._num_finished else 0.0
        return self._num_finished, dict(self._counts), busy_s


class Tracker(Protocol):
    """What a worker asks and tells its run's ``RunTracker``, which lives in an actor (Ray) or in the driver (local)."""

    def start_block(self, key: str) -> bool:
        """Return ``RunTracker.start_block``."""

    def end_block(self, key: str) -> None:
        """Send ``RunTracker.end_block``; the answer is not waited for."""

    def begin(self, key: str, finished: Sequence[Finished]) -> None:
        """Send ``RunTracker.begin``; the answer is not waited for."""

    def finish(self, finished: Sequence[Finished]) -> None:
        """Send ``RunTracker.finish``; the answer is not waited for."""

    def unfinished(self, keys: Sequence[str]) -> dict[str, int]:
        """Return ``RunTracker.unfinished``."""

    def stuck(self, key: str, limit_s: float) -> None:
        """Send ``RunTracker.stuck``; it has arrived, or cannot arrive, when this returns."""

    def limits_of_stuck(self, keys: Sequence[str]) -> dict[str, float]:
        """Return ``RunTracker.limits_of_stuck``."""


class WorkerReports:
    """Reports starts and finishes to the tracker in few calls: each takes half a millisecond on both sides.

    Finished sources are reported together with the next start, or after ``MAX_REPORT_DELAY_S``.

    Args:
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._finished: deque[Finished] = deque()
        self._last_s = time.monotonic()

    def begin(self, key: str) -> None:
        """Report that a source is started; call this before any of it is painted."""
        self._tracker.begin(key, self._take())

    def finish(self, key: str, statuses: Sequence[str]) -> None:
        """Note that a source is finished; any thread may call this."""
        self._finished.append((key, statuses))
        if time.monotonic() - self._last_s > MAX_REPORT_DELAY_S:
            self.flush()

    def flush(self) -> None:
        """Report all finished sources that are not reported yet."""
        if finished := self._take():
            self._tracker.finish(finished)

    def _take(self) -> list[Finished]:
        self._last_s = time.monotonic()
        finished = []
        while self._finished:
            try:
                finished.append(self._finished.popleft())
            except IndexError:  # another thread took the last one
                break
        return finished


IMAGES = Meter(kind="Counter", name="stylemill_images", help="Rows of the manifest by status.", tags=("run", "status"))
STAGE_SECONDS = Meter(
    kind="Histogram",
    name="stylemill_stage_seconds",
    help="Seconds that an image spent in a stage: decode, stylize, encode.",
    tags=("run", "stage"),
    bounds=SECONDS,
)
BYTES = Meter(
    kind="Counter", name="stylemill_bytes", help="Bytes of sources read and results written.", tags=("run", "direction")
)
RETRIES = Meter(kind="Counter", name="stylemill_storage_retries", help="Storage requests that were tried again.")
PLANNED = Meter(kind="Gauge", name="stylemill_sources_planned", help="Sources planned so far.")
FINISHED = Meter(kind="Gauge", name="stylemill_sources_finished", help="Sources whose rows are written.")

METERS = (IMAGES, STAGE_SECONDS, BYTES, RETRIES, PLANNED, FINISHED)


class WorkerMeters:
    """The meters of one worker process.

    Args:
        library: ``ray.util.metrics``, which exports them.
        run_id: the run.
    """

    def __init__(self, library: Any, run_id: str) -> None:
        self._images, self._stages, self._bytes, retries = (
            meter.open(library, run=run_id) for meter in (IMAGES, STAGE_SECONDS, BYTES, RETRIES)
        )
        self._retries = TotalCounter(retries, num_retries)

    def count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the finished rows of one source; a failed row lacks the columns of stages that it did not reach."""
        for row in rows:
            self._images.inc(1, {"status": row["status"]})
            if row.get("output_bytes"):
                self._bytes.inc(row["output_bytes"], {"direction": "written"})
            for stage in ("decode", "stylize", "encode"):
                if row.get(f"{stage}_ms") is not None:
                    self._stages.observe(row[f"{stage}_ms"] / 1000, {"stage": stage})
        if rows and rows[0]["source_bytes"]:
            self._bytes.inc(rows[0]["source_bytes"], {"direction": "read"})
        self.count_retries()

    def count_retries(self) -> None:
        """Count this process's storage retries since the last call."""
        self._retries.update()


class RunMeters:
    """The meters of a run's driver.

    Args:
        library: ``ray.util.metrics``, which exports them.
        run_id: the run.
    """

    def __init__(self, library: Any, run_id: str) -> None:
        self._planned, self._finished = (meter.open(library, run=run_id) for meter in (PLANNED, FINISHED))

    def update(self, progress: Progress) -> None:
        """Record the newest progress."""
        self._planned.set(progress.num_sources)
        self._finished.set(progress.num_resumed + progress.num_finished)
