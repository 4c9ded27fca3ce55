"""The bulk flow: plan, paint in waves of plan shards, commit."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import ray
import ray.data

from pipeline.errors import ConfigError, RunConflict, StorageError, StylemillError
from pipeline.manifest.commit import (
    Part,
    Success,
    commit_part,
    missing_keys,
    read_part,
    read_success,
    write_success,
)
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.pending import FLUSH_ROWS, remove_pending
from pipeline.manifest.plan import ROWS_PER_SHARD, read_plan_summary
from pipeline.manifest.schema import SCHEMA_VERSION
from pipeline.storage import Storage
from pipeline.stylizing.bulk_actor import BulkActor, BulkJob
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.planner import plan_sources
from pipeline.stylizing.preflight import PreparedRun
from pipeline.stylizing.sources import find_sources
from pipeline.stylizing.tracker import Progress, start_tracker

log = logging.getLogger(__name__)

SHARDS_PER_WAVE = 64
MAX_BARREN_WAVES = 3
"""Waves in a row that may leave their shards unfinished before the run stops, resumable."""
PROGRESS_PERIOD_S = 0.5

ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class BulkResult:
    """What came of a run."""

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
        """Share of failed rows among all rows that are images."""
        counts = self.success.counts
        images = counts.get("ok", 0) + counts.get("failed", 0)
        return counts.get("failed", 0) / images if images else 0.0


def stylize(run: PreparedRun, on_progress: ProgressCallback | None = None) -> BulkResult:
    """Paint a prepared run to its end on the Ray cluster that this process is connected to.

    Args:
        run: as ``preflight.prepare`` returns it.
        on_progress: called about twice a second from a thread of its own.

    Raises:
        ConfigError: the cluster lacks what the config asks for, or there are no sources.
        StorageError: storage failed beyond its retries; the same command resumes.
        RunConflict: another process paints or committed the same run.
    """
    start_s = time.monotonic()
    if run.success is not None:
        progress = Progress(num_sources=run.success.num_sources, num_resumed=run.success.num_sources)
        return BulkResult(layout=run.layout, success=run.success, progress=progress, already_committed=True, wall_s=0.0)
    bulk = _Bulk(run, on_progress or (lambda progress: None))
    success = bulk.paint()
    return BulkResult(
        layout=run.layout,
        success=success,
        progress=bulk.progress(),
        already_committed=False,
        wall_s=time.monotonic() - start_s,
    )


class _Bulk:
    """One invocation of one run."""

    def __init__(self, run: PreparedRun, on_progress: ProgressCallback) -> None:
        self._config = run.config
        self._identity = run.identity
        self._layout = run.layout
        self._storage = Storage(run.config.storage)
        self._on_progress = on_progress
        self._tracker = start_tracker()
        self._num_sources = 0
        self._num_resumed = 0

    def paint(self) -> Success:
        num_actors = choose_num_actors(self._config)
        shards = [shard for shard, _ in self._plan()]
        parts: dict[int, Part] = {}
        with self._reporting():
            for start in range(0, len(shards), SHARDS_PER_WAVE):
                self._paint_wave(shards[start : start + SHARDS_PER_WAVE], num_actors, parts)
        return self._commit([parts[shard] for shard in shards])

    def _plan(self) -> list[tuple[int, int]]:
        source_root = self._identity.input
        shards = list(
            plan_sources(self._storage, self._layout, lambda after: find_sources(self._storage, source_root, after))
        )
        self._num_sources = sum(rows for _, rows in shards)
        if not shards:
            raise ConfigError("input", self._config.input, "holds no sources", "give a location that does")
        return shards

    def _paint_wave(self, shards: Sequence[int], num_actors: int, parts: dict[int, Part]) -> None:
        """Paint shards until each has its part, at most a few times over."""
        styles = [style.name for style in self._identity.styles]
        left: list[int] = []
        for shard in shards:
            part = read_part(self._storage, self._layout, shard)
            if part is None:
                left.append(shard)
            else:
                parts[shard] = part
                self._num_resumed += part.rows // len(styles)
        for attempt in range(MAX_BARREN_WAVES):
            missing = {shard: missing_keys(self._storage, self._layout, shard) for shard in left}
            num_missing = sum(table.num_rows for table in missing.values())
            if attempt == 0:
                self._num_resumed += sum(self._planned_rows(shard) for shard in left) - num_missing
            if num_missing:
                self._run_actors(missing, num_missing, num_actors)
            for shard in list(left):
                part = commit_part(self._storage, self._layout, shard, styles)
                if part is not None:
                    parts[shard] = part
                    left.remove(shard)
            if not left:
                return
        raise StorageError(
            f"plan shards {left} of run {self._layout.run_id} stay unfinished after {MAX_BARREN_WAVES} attempts; "
            "run the same command again to resume"
        )

    def _planned_rows(self, shard: int) -> int:
        last = self._num_sources % ROWS_PER_SHARD or ROWS_PER_SHARD
        is_last = (shard + 1) * ROWS_PER_SHARD >= self._num_sources
        return last if is_last else ROWS_PER_SHARD

    def _run_actors(self, missing: dict[int, pa.Table], num_missing: int, num_actors: int) -> None:
        rows_per_block = max(1, min(FLUSH_ROWS, -(-num_missing // (4 * num_actors))))
        blocks = [
            table.slice(start, rows_per_block).append_column(
                "shard", pa.array([shard] * min(rows_per_block, table.num_rows - start), pa.int64())
            )
            for shard, table in missing.items()
            for start in range(0, table.num_rows, rows_per_block)
        ]
        num_actors = min(num_actors, len(blocks))
        job = BulkJob(config=self._config, identity=self._identity, layout=self._layout)
        dataset = ray.data.from_arrow(blocks).map_batches(
            BulkActor,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            num_cpus=self._config.threads_per_actor,
            memory=self._config.max_memory_bytes,
            fn_constructor_kwargs={"job": job, "tracker": self._tracker},
        )
        try:
            for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                pass
        except Exception as error:
            raise own_error(error) from error

    def _commit(self, parts: list[Part]) -> Success:
        summary = read_plan_summary(self._storage, self._layout)
        assert summary is not None, "planning ended before painting did"
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(part.counts)
        success = Success(
            run_id=self._layout.run_id,
            fingerprint=self._identity.fingerprint,
            parent_run_id=self._identity.parent_run_id,
            schema_version=SCHEMA_VERSION,
            styles=[dict(vars(style)) for style in self._identity.styles],
            num_sources=summary.num_sources,
            counts=dict(counts),
            parts=parts,
            finished_at=datetime.now(UTC).isoformat(),
        )
        if not write_success(self._storage, self._layout, success):
            existing = read_success(self._storage, self._layout)
            raise RunConflict(
                f"run {self._layout.run_id} was committed by another process at "
                f"{existing.finished_at if existing else 'the same time'}; its manifest stands"
            )
        remove_pending(self._storage, self._layout)
        return success

    def progress(self) -> Progress:
        num_finished, counts, busy_s = ray.get(self._tracker.progress.remote())
        return Progress(
            num_sources=self._num_sources,
            num_resumed=self._num_resumed,
            counts=counts,
            num_finished=num_finished,
            busy_s=busy_s,
        )

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Call ``on_progress`` from a thread while the body runs."""
        done = threading.Event()

        def report() -> None:
            while not done.wait(PROGRESS_PERIOD_S):
                self._on_progress(self.progress())

        thread = threading.Thread(target=report, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        self._on_progress(self.progress())


def choose_num_actors(config: StylizeConfig) -> int:
    """Return how many actors fit the cluster: by CPUs (or GPUs) and by memory, never more than asked for.

    Raises:
        ConfigError: not even one fits.
    """
    has = ray.cluster_resources()
    by_cpu = int(has.get("CPU", 0) // config.threads_per_actor)
    by_memory = int(has.get("memory", 0) // config.max_memory_bytes)
    if not by_cpu:
        cure = f"give at most {int(has.get('CPU', 0))}"
        raise ConfigError("threads_per_actor", config.threads_per_actor, "is more CPUs than the cluster has", cure)
    if not by_memory:
        cure = f"give at most {int(has.get('memory', 0) / 2**20)}MiB"
        raise ConfigError("max_memory", config.max_memory, "is more than the cluster has free", cure)
    return min(by_cpu, by_memory, config.num_actors or by_cpu)


def own_error(error: BaseException) -> BaseException:
    """Return this project's error inside one of Ray's, or the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StylemillError):
            return seen
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return error
