"""Decoding JPEGs where the network runs: nvJPEG on a GPU, by way of torchvision.

Nothing in this file has run on a GPU yet (see docs/performance.md); the tests run it with the decoder for CPUs.

The same stages as actors of their own, for a GPU: decode, network and encode overlap on different processors.

Samples travel between them as pickled bytes in a column of blocks that stay in Ray's object store; nothing of it is
ever written to storage.
"""

from __future__ import annotations

import logging
import pickle
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray
import torch

from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import PlainJpeg
from stylemill.images.source_image import SourceImage
from stylemill.storage import Storage
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import WorkerMeters, count_deaths, still_to_do
from stylemill.stylizing.paint import BATCHES_IN_FLIGHT, Painter
from stylemill.stylizing.read import Fetched, Reader
from stylemill.stylizing.sample import Sample
from stylemill.stylizing.write import Flusher, Writer

log = logging.getLogger(__name__)


class DeviceJpegDecoder:
    """Decodes the plain JPEGs that the read stage left as they were.

    What the device refuses goes to the careful decoder, whose verdict counts.

    Args:
        device: where to decode: ``cuda``, or ``cpu`` for torchvision's own libjpeg.
        storage: of the run.
        options: of the careful decoder.
    """

    def __init__(self, device: str, storage: Storage, options: DecodeOptions) -> None:
        self._device = device
        self._storage = storage
        self._options = options
        self._careful: Reader | None = None

    def __call__(self, samples: Sequence[Sample]) -> None:
        """Fill in ``source``, or ``failure``, of every sample that holds a plain JPEG.

        Raises:
            ClusterError: this machine cannot start a decoder.
        """
        left = [(sample, sample.jpeg) for sample in samples if sample.jpeg is not None]
        if not left:
            return
        start_s = time.perf_counter()
        decoded = self._decode([jpeg for _, jpeg in left])
        each_ms = 1000 * (time.perf_counter() - start_s) / len(left)
        for (sample, jpeg), source in zip(left, decoded, strict=True):
            sample.jpeg = None
            sample.decode_ms = (sample.decode_ms or 0.0) + each_ms
            sample.source = source
            if source is None:
                self._carefully(Fetched(sample, jpeg.data))

    def _carefully(self, fetched: Fetched) -> None:
        if self._careful is None:  # it has a process of its own, which most runs never need here
            self._careful = Reader(self._storage, self._options)
            log.warning("%s does not decode every JPEG; the careful decoder does the rest", self._device)
        fetched.sample.width_px = fetched.sample.height_px = None  # by the header, which may lie
        self._careful.decode(fetched)

    def _decode(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage | None]:
        try:
            return list(self._on_device(jpegs))
        except (RuntimeError, ValueError) as error:
            if len(jpegs) == 1:
                log.debug("%s did not decode a JPEG", self._device, exc_info=error)
                return [None]
        # One of them spoils the whole call.
        return [one for jpeg in jpegs for one in self._decode([jpeg])]

    def _on_device(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage]:
        """Return all sources, their pixels in host memory.

        Raises:
            RuntimeError: one of them cannot be decoded, or the device has no decoder or no memory.
            ValueError: one has another size than its header says.
        """
        from torchvision.io import ImageReadMode, decode_jpeg

        files = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of a package with builds for GPUs of its own
            images_CHW = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
        stored = [image_CHW.permute(1, 2, 0).contiguous().cpu().numpy() for image_CHW in images_CHW]
        return [jpeg.source(stored_HWC) for jpeg, stored_HWC in zip(jpegs, stored, strict=True)]


CONCURRENT_READS = 4
CONCURRENT_WRITES = 4
SAMPLES_PER_BLOCK = 4
"""On a CPU, where each is painted alone."""
BLOCK_BYTES = 64 * 2**20
"""A block is closed beyond this: a column of 32 large images would be gigabytes."""


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
        self._reader = Reader(self._storage, job.config.decode, leave_plain_jpegs=job.config.gpu_decode)
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="read")

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Read one block of a plan shard."""
        shard = block.column("shard")[0].as_py()
        planned = block.drop_columns(["shard"]).to_pylist()
        todo, given_up = still_to_do(self._storage, self._job.layout, shard, planned, self._tracker)
        yield from _blocks(self._job, shard, given_up)
        yield from _blocks(self._job, shard, self._pool.map(self._reader, todo))
        self._meters.count_retries()


class PaintStage:
    """Decoded samples in, painted samples out; holds the GPU.

    Args:
        job: the run.
        tracker: the run's ``RunTracker``.
    """

    def __init__(self, job: BulkJob, tracker: ray.actor.ActorHandle) -> None:
        storage = Storage(job.config.storage)
        self._job = job
        self._tracker = tracker
        self._decode = DeviceJpegDecoder(job.config.device, storage, job.config.decode)
        self._painter = Painter(storage, job.layout, job.identity.styles, job.config)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Paint one block.

        A block comes a second time if its worker died. Then one image is painted at a time, so that only the one in
        hand may be blamed for the next death; one that was in hand at two deaths is given up.
        """
        samples = _samples(block)
        deaths: dict[str, int] = ray.get(self._tracker.unfinished.remote([sample.key for sample in samples]))
        portions = [[sample] for sample in samples] if deaths else [samples]
        for portion in portions:
            for sample in portion:
                sample.failure = count_deaths(sample.planned, deaths.get(sample.key, 0)) or sample.failure
            yield from _blocks(self._job, block.column("shard")[0].as_py(), self._paint(portion))

    def _paint(self, samples: list[Sample]) -> list[Sample]:
        keys = [sample.key for sample in samples if sample.failure is None]
        # Waited for: what is told in the moment of death is lost.
        ray.get([self._tracker.begin.remote(key) for key in keys])
        self._decode(samples)
        painted = self._painter.paint_all(samples)
        # Otherwise the death of a reader, whose block is read again, would be blamed on what waits to be written.
        self._tracker.survived.remote(keys)
        return painted


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


def _blocks(job: BulkJob, shard: int, samples: Iterable[Sample]) -> Iterator[pa.Table]:
    """Pack samples for the way: few on a CPU, for a GPU as many as keep it busy, and never more than so many bytes."""
    most = BATCHES_IN_FLIGHT * job.config.batch_size if job.config.device == "cuda" else SAMPLES_PER_BLOCK
    waiting: list[bytes] = []
    for sample in samples:
        waiting.append(pickle.dumps(sample, protocol=pickle.HIGHEST_PROTOCOL))
        if len(waiting) == most or sum(map(len, waiting)) >= BLOCK_BYTES:
            yield _block(shard, waiting)
            waiting = []
    if waiting:
        yield _block(shard, waiting)


def _block(shard: int, pickled: list[bytes]) -> pa.Table:
    return pa.table({"shard": [shard] * len(pickled), "sample": pa.array(pickled, pa.large_binary())})


def _samples(block: pa.Table) -> list[Sample]:
    return [pickle.loads(data.as_buffer()) for data in block.column("sample")]  # noqa: S301 (this run's own, in memory)
