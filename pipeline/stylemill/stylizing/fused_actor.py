"""Reading the next sources while one is painted, within a bound on the pixels that lie about.

The actor that reads, stylizes and writes on a CPU, so that no pixel crosses the object store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
import ray

from stylemill.storage import Storage
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import WorkerMeters, WorkerReports, still_to_do
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.read import Fetched, Reader
from stylemill.stylizing.sample import Sample
from stylemill.stylizing.write import Flusher, Writer

READ_AHEAD = 3
"""Sources that are read beyond the one being painted, at most."""
READ_AHEAD_BYTES = 16 * 2**20
"""Their files' sizes together, at most: large files are fetched one by one."""
HELD_PIXEL_BYTES = 64 * 2**20
"""While decoded sources, the one being painted among them, hold more than this, no further one is decoded."""


class ReadAhead:
    """Fetches sources in two threads and decodes them in one, in order.

    Of small pictures some wait decoded; next to a picture of more than ``HELD_PIXEL_BYTES`` none does, so that
    an actor holds one large picture at a time.

    Args:
        reader: fetches and decodes.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._fetches = ThreadPoolExecutor(2, thread_name_prefix="fetch")
        self._decodes = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._held_bytes = 0
        self._released = threading.Condition()

    def samples(self, planned: Iterable[Mapping[str, Any]]) -> Generator[Sample]:
        """Yield decoded samples in order; the last one yielded counts as painted when the next is asked for.

        Args:
            planned: rows of PLAN_SCHEMA.

        Raises:
            StorageError: the store failed beyond its retries.
        """
        rows = deque(planned)
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        try:
            while rows or waiting:
                while rows and _may_read(rows[0]["size_bytes"], [size_bytes for size_bytes, _ in waiting]):
                    row = rows.popleft()
                    fetched = self._fetches.submit(self._reader.fetch, row)
                    waiting.append((row["size_bytes"], self._decodes.submit(self._decode, fetched)))
                sample = waiting.popleft()[1].result()
                num_bytes = pixel_bytes(sample)
                try:
                    yield sample
                finally:
                    del sample
                    self._hold(-num_bytes)
        finally:
            # Whoever stopped asking (an error while painting) leaves decoded samples behind.
            for _, future in waiting:
                if not future.cancel() and future.exception() is None:
                    self._hold(-pixel_bytes(future.result()))

    def _decode(self, fetched: Future[Fetched]) -> Sample:
        got = fetched.result()
        with self._released:
            self._released.wait_for(lambda: self._held_bytes <= HELD_PIXEL_BYTES)
        sample = self._reader.decode(got)
        self._hold(pixel_bytes(sample))
        return sample

    def _hold(self, num_bytes: int) -> None:
        with self._released:
            self._held_bytes += num_bytes
            self._released.notify_all()


def pixel_bytes(sample: Sample) -> int:
    """Return the bytes of a sample's decoded pixels, alpha and frames included; 0 if it could not be decoded."""
    if sample.source is None:
        return 0
    arrays = [sample.source.image_HWC, sample.source.alpha_HW]
    for frame in sample.source.frames:
        arrays += [frame.image_HWC, frame.alpha_HW]
    return sum(array.nbytes for array in arrays if array is not None)


def _may_read(size_bytes: int, waiting: list[int]) -> bool:
    """Tell whether one more source of this size may be read ahead."""
    return not waiting or (len(waiting) < READ_AHEAD and sum(waiting) + size_bytes <= READ_AHEAD_BYTES)


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
