"""The bulk flow: plans in the background, paints groups of plan shards, and commits the manifest.

``stylize`` is the entry point. While actors paint one group of shards, ``Publisher`` writes the manifest parts of the
group before. A shard whose rows are still incomplete after its group was painted is painted again. ``_SUCCESS`` is
written last.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from stylemill.errors import ConfigError, RunConflict, StorageError
from stylemill.manifest.commit import (
    Part,
    Success,
    commit_part,
    committed_part,
    read_plan_summary,
    read_success,
    remove_pending,
    unfinished_sources,
    write_success,
)
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import cleaning_lease_uri, next_sequence
from stylemill.manifest.schema import SCHEMA_VERSION
from stylemill.process import periodically
from stylemill.storage import Storage
from stylemill.storage.lease import HeldLease, acquire, settle
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.incremental import make_finder
from stylemill.stylizing.liveness import Progress
from stylemill.stylizing.plan import PlanningThread, Shard, plan_sources
from stylemill.stylizing.preflight import PreparedRun, Runner

if TYPE_CHECKING:
    from stylemill.stylizing.local_workers import WorkerProcess

log = logging.getLogger(__name__)

CONCURRENT_SHARDS = 8
"""Shards whose small objects are read at the same time; each takes a hundred requests, one after another."""
SHARDS_PER_GROUP = 64
"""Maximum number of plan shards that are painted together, by one pipeline on Ray."""
MAX_ROUNDS = 3
"""A shard is painted at most this often; if its rows are still incomplete, the run stops and can be resumed."""
PROGRESS_PERIOD_S = 0.5
"""Time between two calls of the progress callback."""

ProgressCallback = Callable[[Progress], None]


class Workers(AbstractContextManager["Workers"], Protocol):
    """What paints: ``ray_pipeline.RayWorkers`` or ``local_workers.LocalWorkers``."""

    def paint(self, missing: Mapping[int, pa.Table]) -> None:
        """Paint the missing sources of plan shards; their rows are in ``pending/`` when this returns."""

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return ``RunTracker.progress``."""

    def export(self, progress: Progress) -> None:
        """Hand progress to who collects metrics."""


@dataclass(frozen=True, kw_only=True)
class BulkResult:
    """Outcome of a run."""

    layout: RunLayout
    success: Success
    progress: Progress
    """Of this invocation."""
    already_committed: bool
    wall_s: float

    @property
    def errors(self) -> dict[str, int]:
        """Rows by error type."""
        total: Counter[str] = Counter()
        for part in self.success.parts:
            total.update(part.errors)
        return dict(total.most_common())

    @property
    def failed_fraction(self) -> float:
        """Fraction of failed rows among the rows of images (``ok`` and ``failed``)."""
        counts = self.success.counts
        images = counts.get("ok", 0) + counts.get("failed", 0)
        return counts.get("failed", 0) / images if images else 0.0


def stylize(
    run: PreparedRun,
    on_progress: ProgressCallback | None = None,
    first_worker: WorkerProcess | None = None,
    local_workers: tuple[int, int] | None = None,
) -> BulkResult:
    """Paint and commit a prepared run, in processes of this machine or on the Ray cluster, as ``run.runner`` says.

    Args:
        run: as ``preflight.prepare`` returns it; for ``ray``, this process is connected to a cluster.
        on_progress: called about twice a second, from another thread.
        first_worker: of a local run, started early; the caller ends it as well.
        local_workers: of a local run, what ``local_workers.choose_workers`` returned, if it was called already.

    Raises:
        ConfigError: the machine or cluster lacks resources that the config requires, or there are no sources.
        StorageError: storage failed beyond its retries; the same command resumes.
        RunConflict: another process is painting or has committed the same run, or is cleaning the output.
    """
    start_s = time.monotonic()
    if run.success is not None:
        return _nothing_to_do(run.layout, run.success)
    storage = Storage(run.config.storage)
    with acquire(storage, run.layout.lease_uri, on_wait=log.warning) as lease:
        settle(storage, cleaning_lease_uri(run.layout.out), on_wait=log.warning, what="the output")
        committed = read_success(storage, run.layout)
        if committed is not None:  # by the process that held the lease
            return _nothing_to_do(run.layout, committed)
        job = BulkJob(config=run.config, identity=run.identity, layout=run.layout, lease_token=lease.token)
        with _workers(run.runner, job, first_worker, local_workers) as workers:
            bulk = _BulkRun(run, job, lease, workers)

            def report() -> None:
                progress = bulk.progress()
                workers.export(progress)
                if on_progress is not None:
                    on_progress(progress)

            with periodically(report, PROGRESS_PERIOD_S):
                success = bulk.paint()
            progress = bulk.progress()
    if success is None:  # the run's folder stays: removing it could remove what a newcomer is writing there
        parent = run.history[-1]
        return _nothing_to_do(parent.layout, parent.success)
    return BulkResult(
        layout=run.layout,
        success=success,
        progress=progress,
        already_committed=False,
        wall_s=time.monotonic() - start_s,
    )


def _workers(
    runner: Runner, job: BulkJob, first_worker: WorkerProcess | None, local_workers: tuple[int, int] | None
) -> Workers:
    if runner == "local":
        from stylemill.stylizing.local_workers import LocalWorkers

        return LocalWorkers(job, first_worker, local_workers)
    from stylemill.stylizing.ray_pipeline import RayWorkers  # a local run must not load Ray

    return RayWorkers(job)


def _nothing_to_do(layout: RunLayout, success: Success) -> BulkResult:
    progress = Progress(num_sources=success.num_sources, num_resumed=success.num_sources)
    return BulkResult(layout=layout, success=success, progress=progress, already_committed=True, wall_s=0.0)


class _BulkRun:
    """One invocation of one run."""

    def __init__(self, run: PreparedRun, job: BulkJob, lease: HeldLease, workers: Workers) -> None:
        self._config = run.config
        self._identity = run.identity
        self._layout = run.layout
        self._lease = lease
        self._storage = Storage(run.config.storage)
        self._finder = make_finder(self._storage, run.layout, run.identity, run.history, run.broken_keys)
        self._workers = workers
        self._planning = PlanningThread(self._plan)
        self._num_resumed = 0

    def paint(self) -> Success | None:
        """Paint and commit; return None if an incremental run has nothing to do."""
        styles = [style.name for style in self._identity.styles]
        publisher = Publisher(self._storage, self._layout, styles, self._lease)
        try:
            while shards := self._planning.take(SHARDS_PER_GROUP):
                self._paint_group(publisher, dict(shards))
            self._paint_again(publisher, publisher.wait())
        finally:
            self._planning.stop()
            publisher.stop()
        if not publisher.parts and self._identity.follow_up:
            return None
        if not publisher.parts:
            raise ConfigError("input", self._config.input, "contains no sources", "give a location that contains some")
        return self._commit(publisher.parts)

    def _plan(self) -> Iterator[Shard]:
        return plan_sources(self._storage, self._layout, self._finder)

    def _paint_group(self, publisher: Publisher, num_rows: Mapping[int, int]) -> None:
        """Paint the shards that are the keys of ``num_rows``; their parts are being written when this returns."""
        missing = publisher.missing(num_rows)
        self._num_resumed += sum(num_rows.values()) - sum(table.num_rows for table in missing.values())
        self._paint(missing)
        self._paint_again(publisher, publisher.wait())
        publisher.publish(missing)

    def _paint_again(self, publisher: Publisher, unfinished: Iterable[int]) -> None:
        """Paint the rows that shards still lack after they were painted once; return when each has its part."""
        for _ in range(MAX_ROUNDS - 1):
            if not unfinished:
                return
            missing = publisher.missing(unfinished)
            self._paint(missing)
            publisher.publish(missing)
            unfinished = publisher.wait()
        if unfinished:
            raise StorageError(
                f"plan shards {sorted(unfinished)} of run {self._layout.run_id} are incomplete after {MAX_ROUNDS} "
                "rounds; run the same command again to resume"
            )

    def _paint(self, missing: Mapping[int, pa.Table]) -> None:
        if any(table.num_rows for table in missing.values()):
            self._workers.paint(missing)

    def _commit(self, parts: list[Part]) -> Success:
        summary = read_plan_summary(self._storage, self._layout)
        assert summary is not None, "planning ended before painting did"
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(part.counts)
        success = Success(
            run_id=self._layout.run_id,
            input=self._identity.input,
            fingerprint=self._identity.fingerprint,
            parent_run_id=self._identity.parent_run_id,
            schema_version=SCHEMA_VERSION,
            styles=[dict(vars(style)) for style in self._identity.styles],
            num_sources=summary.num_sources,
            counts=dict(counts),
            parts=parts,
            finished_at=datetime.now(UTC).isoformat(),
            sequence=next_sequence(self._storage, self._layout.out, self._layout.run_id),
        )
        self._lease.check()  # last: what precedes it may have taken long
        if not write_success(self._storage, self._layout, success):
            existing = read_success(self._storage, self._layout)
            raise RunConflict(
                f"run {self._layout.run_id} was committed by another process at "
                f"{existing.finished_at if existing else 'the same time'}; its manifest is kept"
            )
        remove_pending(self._storage, self._layout)
        return success

    def progress(self) -> Progress:
        """Return the progress of this invocation."""
        num_finished, counts, busy_s = self._workers.progress()
        return Progress(
            num_sources=self._planning.num_sources,
            num_resumed=self._num_resumed,
            counts=counts,
            num_finished=num_finished,
            busy_s=busy_s,
        )


class Publisher:
    """Finds the rows that plan shards still lack, and writes the manifest parts of complete shards.

    Args:
        storage: where the run is.
        layout: of the run.
        styles: names of the run's styles.
        lease: checked before each part is written.
    """

    def __init__(self, storage: Storage, layout: RunLayout, styles: Sequence[str], lease: HeldLease) -> None:
        self._storage, self._layout, self._styles, self._lease = storage, layout, styles, lease
        self._pool = ThreadPoolExecutor(CONCURRENT_SHARDS, thread_name_prefix="publish")
        self._started: dict[int, Future[Part | None]] = {}
        self._parts: dict[int, Part] = {}

    @property
    def parts(self) -> list[Part]:
        """The parts that exist, in the order of the plan."""
        return [self._parts[shard] for shard in sorted(self._parts)]

    def missing(self, shards: Iterable[int]) -> dict[int, pa.Table]:
        """Return the planned rows that are not painted yet, for each shard that has no part."""
        shards = list(shards)
        tables = dict(zip(shards, self._pool.map(self._missing, shards), strict=True))
        return {shard: table for shard, table in tables.items() if table is not None}

    def _missing(self, shard: int) -> pa.Table | None:
        part = committed_part(self._storage, self._layout, shard)
        if part is None:
            return unfinished_sources(self._storage, self._layout, shard)
        self._parts[shard] = part
        return None

    def publish(self, shards: Iterable[int]) -> None:
        """Start writing the parts of painted shards, and return at once."""
        for shard in shards:
            self._started[shard] = self._pool.submit(self._publish, shard)

    def _publish(self, shard: int) -> Part | None:
        self._lease.check()
        return commit_part(self._storage, self._layout, shard, self._styles)

    def wait(self) -> list[int]:
        """Wait until the started parts are written; return the shards that lack rows and have no part.

        Raises:
            RunConflict: the lease was lost.
            StorageError: pending rows are not in the plan, or storage failed beyond its retries.
        """
        unfinished = []
        for shard, future in self._started.items():
            part = future.result()
            if part is None:
                unfinished.append(shard)
            else:
                self._parts[shard] = part
        self._started = {}
        return unfinished

    def stop(self) -> None:
        """Start no more parts, and wait for those being written."""
        self._pool.shutdown(cancel_futures=True)
