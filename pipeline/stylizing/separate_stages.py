"""The same stages as actors of their own, for a GPU: decode, network and encode overlap on different processors.

Samples travel between them as pickled bytes in a column of blocks that stay in Ray's object store; nothing of it is
ever written to storage.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray

from pipeline.storage import Storage
from pipeline.stylizing.flusher import Flusher
from pipeline.stylizing.job import BulkJob
from pipeline.stylizing.meters import WorkerMeters
from pipeline.stylizing.painter import Painter
from pipeline.stylizing.quarantine import still_to_do
from pipeline.stylizing.reader import Reader
from pipeline.stylizing.sample import Sample
from pipeline.stylizing.writer import Writer

CONCURRENT_READS = 4
CONCURRENT_WRITES = 4
SAMPLES_PER_BLOCK = 4
"""Decoded samples travel in small blocks: a column of 32 large images would be gigabytes."""


class ReadStage:
    """Planned rows in, decoded samples out.

    Args:
        job: the run.
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, job: BulkJob, tracker: ray.actor.ActorHandle) -> None:
        self._storage = Storage(job.config.storage)
        self._job = job
        self._tracker = tracker
        self._meters = WorkerMeters(job.layout.run_id)
        self._reader = Reader(self._storage, job.config.decode)
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="read")

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Read one block of a plan shard."""
        shard = block.column("shard")[0].as_py()
        planned = block.drop_columns(["shard"]).to_pylist()
        todo, given_up = still_to_do(self._storage, self._job.layout, shard, planned, self._tracker)
        yield from _blocks(shard, given_up)
        yield from _blocks(shard, self._pool.map(self._reader, todo))
        self._meters.count_retries()


class PaintStage:
    """Decoded samples in, painted samples out; holds the GPU.

    Args:
        job: the run.
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, job: BulkJob, tracker: ray.actor.ActorHandle) -> None:
        self._tracker = tracker
        self._painter = Painter(Storage(job.config.storage), job.layout, job.identity.styles, job.config)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Paint one block."""
        samples = _samples(block)
        for sample in samples:
            self._tracker.begin.remote(sample.key)
        painted = self._painter.paint_all(samples)
        # Otherwise the death of a reader, whose block is read again, would be blamed on what waits to be written.
        self._tracker.survived.remote([sample.key for sample in samples])
        yield from _blocks(block.column("shard")[0].as_py(), painted)


class WriteStage:
    """Painted samples in, images and pending rows written.

    Args:
        job: the run.
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, job: BulkJob, tracker: ray.actor.ActorHandle) -> None:
        self._storage = Storage(job.config.storage)
        self._job = job
        self._tracker = tracker
        self._meters = WorkerMeters(job.layout.run_id)
        self._writer = Writer(self._storage, job.layout, job.identity, job.config.encode)
        self._pool = ThreadPoolExecutor(CONCURRENT_WRITES, thread_name_prefix="write")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Write one block."""
        shard, samples = block.column("shard")[0].as_py(), _samples(block)
        flusher = Flusher(self._storage, self._job.layout, shard, self._job.lease(self._storage))
        try:
            for sample, rows in zip(samples, self._pool.map(self._writer, samples), strict=True):
                flusher.add(rows)
                self._meters.count(rows)
                self._tracker.finish.remote([(sample.key, [row["status"] for row in rows])])
        finally:
            flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(samples)]})


def _blocks(shard: int, samples: Iterable[Sample]) -> Iterator[pa.Table]:
    waiting: list[bytes] = []
    for sample in samples:
        waiting.append(pickle.dumps(sample, protocol=pickle.HIGHEST_PROTOCOL))
        if len(waiting) == SAMPLES_PER_BLOCK:
            yield _block(shard, waiting)
            waiting = []
    if waiting:
        yield _block(shard, waiting)


def _block(shard: int, pickled: list[bytes]) -> pa.Table:
    return pa.table({"shard": [shard] * len(pickled), "sample": pa.array(pickled, pa.large_binary())})


def _samples(block: pa.Table) -> list[Sample]:
    return [pickle.loads(data.as_buffer()) for data in block.column("sample")]  # noqa: S301 (this run's own, in memory)
