"""The actor that reads, stylizes and writes on a CPU, so that no pixel crosses the object store."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
import ray

from pipeline.storage import Storage
from pipeline.stylizing.flusher import Flusher
from pipeline.stylizing.job import BulkJob
from pipeline.stylizing.meters import WorkerMeters
from pipeline.stylizing.painter import Painter
from pipeline.stylizing.quarantine import still_to_do
from pipeline.stylizing.read_ahead import ReadAhead, pixel_bytes
from pipeline.stylizing.reader import Reader
from pipeline.stylizing.sample import Sample
from pipeline.stylizing.worker_reports import WorkerReports
from pipeline.stylizing.writer import Writer

WRITE_BEHIND = 3
"""Painted sources that wait to be written, at most."""
WRITE_BEHIND_BYTES = 64 * 2**20
"""Their decoded sources' sizes together, at most: a large picture is written before the next is painted."""


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
        self._meters = WorkerMeters(job.layout.run_id)
        self._read_ahead = ReadAhead(Reader(storage, job.config.decode))
        self._painter = Painter(storage, job.layout, job.identity.styles, job.config)
        self._writer = Writer(storage, job.layout, job.identity, job.config.encode)
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
        writes: deque[tuple[int, Future[list[dict[str, Any]]]]] = deque()
        try:
            for sample in given_up:
                writes.append((0, self._writes.submit(self._write, sample)))
            with closing(self._read_ahead.samples(todo)) as samples:
                for sample in samples:
                    self._reports.begin(sample.key)
                    writes.append((pixel_bytes(sample), self._writes.submit(self._write, self._painter(sample))))
                    del sample  # its pixels shall not outlive its writing
                    while _too_many(writes, write_behind):
                        flusher.add(writes.popleft()[1].result())
                    if not write_behind:
                        self._reports.flush()
            while writes:
                flusher.add(writes.popleft()[1].result())
        finally:
            self._reports.flush()
            flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(todo)]})

    def _write(self, sample: Sample) -> list[dict[str, Any]]:
        rows = self._writer(sample)
        self._reports.finish(sample.key, [row["status"] for row in rows])
        self._meters.count(rows)
        return rows


def _too_many(writes: deque[tuple[int, Future[Any]]], write_behind: int) -> bool:
    """Tell whether the oldest of these writes must end, or has ended, before another source is painted."""
    num_bytes = sum(size_bytes for size_bytes, _ in writes)
    return bool(writes) and (len(writes) > write_behind or num_bytes > WRITE_BEHIND_BYTES or writes[0][1].done())
