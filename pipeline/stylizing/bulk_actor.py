"""The actor that reads, stylizes and writes on a CPU, so that no pixel crosses the object store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray

from pipeline.storage import Storage
from pipeline.stylizing.flusher import Flusher
from pipeline.stylizing.job import BulkJob
from pipeline.stylizing.painter import Painter
from pipeline.stylizing.quarantine import still_to_do
from pipeline.stylizing.reader import Reader
from pipeline.stylizing.sample import Sample
from pipeline.stylizing.worker_reports import WorkerReports
from pipeline.stylizing.writer import Writer

READ_AHEAD = 3
"""Decoded sources that wait for the network, at most."""
READ_AHEAD_BYTES = 16 * 2**20
"""Their files' sizes together, at most: large pictures are read one by one."""
WRITE_BEHIND = 3
"""Painted sources that wait to be written, at most."""


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
        self._reports = WorkerReports(tracker)
        self._reader = Reader(storage, job.config.decode)
        self._painter = Painter(storage, job.layout, job.identity.styles, job.config)
        self._writer = Writer(storage, job.layout, job.identity, job.config.encode)
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
        attempts = [row["attempt"] for row in planned]
        todo, given_up = still_to_do(self._storage, self._job.layout, shard, planned, self._tracker)
        # After a death one image at a time: only the one in hand may be blamed for the next.
        write_behind = WRITE_BEHIND if attempts == [row["attempt"] for row in planned] else 0
        flusher = Flusher(self._storage, self._job.layout, shard, self._job.lease(self._storage))
        writes: deque[Future[list[dict[str, Any]]]] = deque(self._writes.submit(self._write, s) for s in given_up)
        try:
            for sample in self._samples(todo):
                writes.append(self._writes.submit(self._write, self._painter(sample)))
                while len(writes) > write_behind or (writes and writes[0].done()):
                    flusher.add(writes.popleft().result())
                if not write_behind:
                    self._reports.flush()
            while writes:
                flusher.add(writes.popleft().result())
        finally:
            self._reports.flush()
            flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(todo)]})

    def _samples(self, todo: list[dict[str, Any]]) -> Iterator[Sample]:
        """Yield decoded samples in order, reading ahead; note each start just before it is painted."""
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        rows = deque(todo)
        while rows or waiting:
            while rows and _may_read(rows[0]["size_bytes"], [size_bytes for size_bytes, _ in waiting]):
                row = rows.popleft()
                waiting.append((row["size_bytes"], self._reads.submit(self._reader, row)))
            sample = waiting.popleft()[1].result()
            self._reports.begin(sample.key)
            yield sample

    def _write(self, sample: Sample) -> list[dict[str, Any]]:
        rows = self._writer(sample)
        self._reports.finish(sample.key, [row["status"] for row in rows])
        return rows


def _may_read(size_bytes: int, waiting: list[int]) -> bool:
    """Tell whether one more source of this size may be read ahead."""
    return not waiting or (len(waiting) < READ_AHEAD and sum(waiting) + size_bytes <= READ_AHEAD_BYTES)
