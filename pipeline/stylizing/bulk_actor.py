"""The actor that reads, stylizes and writes on a CPU, so that no pixel crosses the object store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import ray

from pipeline.errors import ImageError
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.lease import Lease
from pipeline.manifest.pending import FLUSH_ROWS, FLUSH_SECONDS, write_pending
from pipeline.storage import Storage
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.identity import RunIdentity
from pipeline.stylizing.painter import Painter
from pipeline.stylizing.reader import Reader
from pipeline.stylizing.sample import Sample
from pipeline.stylizing.writer import Writer

READ_AHEAD = 3
"""Decoded sources that wait for the network, at most."""
WRITE_BEHIND = 3
"""Painted sources that wait to be written, at most."""
MAX_WORKER_DEATHS = 2
"""An image whose worker died this often is given up."""


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """What every actor of a run must know."""

    config: StylizeConfig
    identity: RunIdentity
    layout: RunLayout
    lease_token: int
    """Fencing token of the driver: an actor that finds a higher one stops."""


class BulkActor:
    """Does whole blocks of a plan shard: while one image is painted, the next are read and the last are written.

    Args:
        job: the run.
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, job: BulkJob, tracker: ray.actor.ActorHandle) -> None:
        storage = Storage(job.config.storage)
        self._storage = storage
        self._job = job
        self._tracker = tracker
        self._reader = Reader(storage, job.config.decode)
        self._painter = Painter(storage, job.layout, job.identity.styles, job.config)
        self._writer = Writer(storage, job.layout, job.identity, job.config.encode)
        self._lease = Lease(storage, job.layout.lease_uri, job.lease_token)
        self._reads = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._writes = ThreadPoolExecutor(2, thread_name_prefix="write")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Do one block: rows of PLAN_SCHEMA with a ``shard`` column, all of one shard.

        Returns:
            One row: the shard and how many sources were done.

        Raises:
            StorageError: the store failed beyond its retries; what was finished is flushed before.
            RunConflict: another process has taken the run over.
        """
        shard = block.column("shard")[0].as_py()
        planned = block.drop_columns(["shard"]).to_pylist()
        flusher = _Flusher(self._storage, self._job.layout, shard, self._lease)
        writes: deque[Future[list[dict[str, Any]]]] = deque()
        try:
            for sample in self._samples(planned):
                writes.append(self._writes.submit(self._write, self._painter(sample)))
                while len(writes) > WRITE_BEHIND or (writes and writes[0].done()):
                    flusher.add(writes.popleft().result())
            while writes:
                flusher.add(writes.popleft().result())
        finally:
            flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(planned)]})

    def _samples(self, planned: list[dict[str, Any]]) -> Iterator[Sample]:
        """Yield decoded samples in order, reading ahead; note each start just before it is painted."""
        deaths = ray.get(self._tracker.unfinished.remote([row["key"] for row in planned]))
        for row in planned:
            row["attempt"] += deaths.get(row["key"], 0)
        given_up = {key for key, count in deaths.items() if count >= MAX_WORKER_DEATHS}
        waiting: deque[Future[Sample]] = deque()
        todo = iter(planned)
        while True:
            for row in islice(todo, READ_AHEAD - len(waiting)):
                waiting.append(self._reads.submit(_give_up if row["key"] in given_up else self._reader, row))
            if not waiting:
                return
            sample = waiting.popleft().result()
            self._tracker.begin.remote(sample.key)
            yield sample

    def _write(self, sample: Sample) -> list[dict[str, Any]]:
        rows = self._writer(sample)
        self._tracker.finish.remote(sample.key, [row["status"] for row in rows])
        return rows


def _give_up(planned: dict[str, Any]) -> Sample:
    message = f"the worker process died {MAX_WORKER_DEATHS} times while painting it; paint it alone with more memory"
    return Sample(planned=planned, failure=ImageError("WorkerDied", message))


class _Flusher:
    """Collects rows and writes them to ``pending/`` every 32 images or 10 seconds."""

    def __init__(self, storage: Storage, layout: RunLayout, shard: int, lease: Lease) -> None:
        self._storage = storage
        self._lease = lease
        self._layout = layout
        self._shard = shard
        self._rows: list[dict[str, Any]] = []
        self._num_images = 0
        self._last_s = time.monotonic()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take the rows of one finished source."""
        self._rows += rows
        self._num_images += 1
        if self._num_images >= FLUSH_ROWS or time.monotonic() - self._last_s > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._rows:
            self._lease.check()
            write_pending(self._storage, self._layout, self._shard, self._rows)
        self._rows, self._num_images, self._last_s = [], 0, time.monotonic()
