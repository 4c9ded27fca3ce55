"""The worker that reads, paints and writes on a CPU, so that no pixel leaves its process; on Ray it is an actor.

While one image is painted, ``ReadAhead`` fetches and decodes the next ones and ``BulkActor`` writes the last ones.
Both hold a bounded number of decoded pixels. A block in which a worker died is done one image at a time.
``Stage`` holds what this actor shares with the separate actors of ``gpu_actors``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa

from stylemill.errors import StylemillError
from stylemill.storage import Storage
from stylemill.stylizing.blocks import planned_rows, shard_of
from stylemill.stylizing.environment import agree_on_codecs
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import Tracker, WorkerMeters, WorkerReports
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.plan import web_locations
from stylemill.stylizing.quarantine import PaintWatch, remaining_work
from stylemill.stylizing.read import Fetched, Reader
from stylemill.stylizing.sample import Sample
from stylemill.stylizing.write import Flusher, Writer

READ_AHEAD = 3
"""Maximum number of sources that are read beyond the one being painted."""
READ_AHEAD_BYTES = 16 * 2**20
"""Maximum sum of their file sizes: large files are fetched one by one."""
UNKNOWN_BYTES = READ_AHEAD_BYTES // READ_AHEAD
"""Supposed size of a source of a list, whose size is not known before it is fetched."""
HELD_PIXEL_BYTES = 64 * 2**20
"""No further source is decoded while the decoded ones, including the one being painted, hold more than this."""
WRITE_BEHIND = 3
"""Maximum number of painted sources that wait to be written."""
WRITE_BEHIND_BYTES = 64 * 2**20
"""Maximum sum of the sizes of their decoded sources: a large picture is written before the next is painted."""


class Stage:
    """Base of the actors of a run: the job, its storage, its tracker, and what each block needs.

    What is wrong with this machine or the run's folder is raised by the first block: of the errors of constructors Ray
    keeps only the text.

    Args:
        job: the run.
        tracker: of the run.
    """

    def __init__(self, job: BulkJob, tracker: Tracker) -> None:
        self._job = job
        self._tracker = tracker
        options = job.config.storage
        self._storage = Storage(options, web_witnesses=partial(web_locations, options, job.layout))
        self._failure: StylemillError | None = None
        try:
            agree_on_codecs(self._storage, job.layout)
            self._open()
        except StylemillError as error:
            self._failure = error

    def _open(self) -> None:
        """Make what blocks need and what may fail."""

    def _check(self) -> None:
        """Raise what went wrong in the constructor; each block calls this first."""
        if self._failure is not None:
            raise self._failure

    def _remaining_work(
        self, shard: int, planned: list[dict[str, Any]], *, is_repeated: bool = False
    ) -> tuple[list[dict[str, Any]], list[Sample]]:
        return remaining_work(self._storage, self._job.layout, shard, planned, self._tracker, is_repeated=is_repeated)

    def _flusher(self, shard: int) -> Flusher:
        return Flusher(self._storage, self._job.layout, shard, self._job.lease(self._storage))


class BulkActor(Stage):
    """Reads, paints and writes whole blocks of a plan shard.

    Args:
        job: the run.
        tracker: of the run.
        meters: of this process; None where nobody collects metrics.
    """

    def __init__(self, job: BulkJob, tracker: Tracker, meters: WorkerMeters | None = None) -> None:
        super().__init__(job, tracker)
        self._reports = WorkerReports(tracker)
        self._watch = PaintWatch(tracker, job.config.paint_timeout_s, job.identity.styles_per_source)
        self._meters = meters
        self._reader = Reader(self._storage, job.config.decode)
        self._read_ahead = ReadAhead(self._reader)
        self._writer = Writer(self._storage, job.layout, job.identity, job.config.encode)
        self._writes = ThreadPoolExecutor(2, thread_name_prefix="write")

    def _open(self) -> None:
        job = self._job
        self._painter = Painter(self._storage, job.layout, job.identity, job.config, use_idle_cores=job.use_idle_cores)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Do one block.

        Args:
            block: rows of PLAN_SCHEMA with a ``shard`` column, all of one shard.

        Returns:
            One row: the shard and the number of sources done.

        Raises:
            ConfigError: this machine paints otherwise than those on which the run began.
            StorageError: storage failed beyond its retries; finished rows are flushed first.
            RunConflict: another process has taken the run over.
        """
        self._check()
        shard, planned = shard_of(block), planned_rows(block)
        attempts, first_key = [row["attempt"] for row in planned], planned[0]["key"]
        is_repeated = self._tracker.start_block(first_key)
        todo, given_up = self._remaining_work(shard, planned, is_repeated=is_repeated)
        # After a death one image at a time, so that only the image being done is blamed for the next death.
        alone = is_repeated or attempts != [row["attempt"] for row in planned]
        write_behind = 0 if alone else WRITE_BEHIND
        flusher = self._flusher(shard)
        writes: deque[tuple[int, Future[list[dict[str, Any]]]]] = deque()
        try:
            for sample in given_up:
                writes.append((0, self._writes.submit(self._write, sample)))
            with closing(self._begin_and_read(todo) if alone else self._read_ahead.samples(todo)) as samples:
                for sample in samples:
                    if not alone:
                        self._reports.begin(sample.key)
                    with self._watch({sample.key: self._painter.num_pixels(sample)}):
                        painted = self._painter(sample)
                    writes.append((pixel_bytes(sample), self._writes.submit(self._write, painted)))
                    del sample, painted  # its pixels are freed as soon as it is written
                    while _must_wait(writes, write_behind):
                        flusher.add(writes.popleft()[1].result())
                    if not write_behind:
                        self._reports.flush()
            while writes:
                flusher.add(writes.popleft()[1].result())
        finally:
            self._reports.flush()
            flusher.flush()
        self._tracker.end_block(first_key)
        return pa.table({"shard": [shard], "num_done": [len(todo)]})

    def _begin_and_read(self, planned: Iterable[Mapping[str, Any]]) -> Generator[Sample]:
        """Yield decoded samples one by one; each is reported as begun before it is read, which may end this process."""
        for row in planned:
            self._reports.begin(row["key"])
            self._tracker.unfinished([row["key"]])  # answered after the report has arrived
            yield self._reader(row)

    def _write(self, sample: Sample) -> list[dict[str, Any]]:
        rows = self._writer(sample)
        self._reports.finish(sample.key, [row["status"] for row in rows])
        if self._meters is not None:
            self._meters.count(rows)
        return rows


def _must_wait(writes: deque[tuple[int, Future[Any]]], write_behind: int) -> bool:
    """Return whether to take the result of the oldest write, which may have to finish, before painting continues."""
    num_bytes = sum(size_bytes for size_bytes, _ in writes)
    return bool(writes) and (len(writes) > write_behind or num_bytes > WRITE_BEHIND_BYTES or writes[0][1].done())


class ReadAhead:
    """Fetches sources in two threads and decodes them in one, in order.

    Several small pictures may wait decoded. While a picture of more than ``HELD_PIXEL_BYTES`` is held, no other is
    decoded, so an actor holds one large picture at a time.

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
        """Yield decoded samples in order; a sample counts as held until the next one is requested.

        Args:
            planned: rows of PLAN_SCHEMA.

        Raises:
            StorageError: storage failed beyond its retries.
        """
        rows = deque(planned)
        waiting: deque[tuple[int, Future[Fetched], Future[Sample]]] = deque()
        try:
            while rows or waiting:
                while rows and _may_read(
                    rows[0]["size_bytes"], [_size_bytes(planned, fetched) for planned, fetched, _ in waiting]
                ):
                    row = rows.popleft()
                    fetched = self._fetches.submit(self._reader.fetch, row)
                    waiting.append((row["size_bytes"], fetched, self._decodes.submit(self._decode, fetched)))
                sample = waiting.popleft()[2].result()
                num_bytes = pixel_bytes(sample)
                try:
                    yield sample
                finally:
                    del sample
                    self._hold(-num_bytes)
        finally:
            # A caller that stops early, because painting failed, leaves decoded samples behind.
            for _, _, future in waiting:
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


def _may_read(size_bytes: int, waiting: list[int]) -> bool:
    """Return whether one more source of this size may be read ahead."""
    size_bytes = size_bytes or UNKNOWN_BYTES
    return not waiting or (len(waiting) < READ_AHEAD and sum(waiting) + size_bytes <= READ_AHEAD_BYTES)


def _size_bytes(planned_bytes: int, fetched: Future[Fetched]) -> int:
    """Return the size of a source that is read ahead: if nothing tells it, a supposed one until it is there."""
    if fetched.done() and not fetched.cancelled() and fetched.exception() is None:
        return max(planned_bytes, len(fetched.result().data))
    return planned_bytes or UNKNOWN_BYTES


def pixel_bytes(sample: Sample) -> int:
    """Return the bytes of a sample's decoded pixels, alpha and frames included; 0 if it could not be decoded."""
    if sample.source is None:
        return 0
    arrays = [sample.source.image_HWC, sample.source.alpha_HW]
    for frame in sample.source.frames:
        arrays += [frame.image_HWC, frame.alpha_HW]
    return sum(array.nbytes for array in arrays if array is not None)
