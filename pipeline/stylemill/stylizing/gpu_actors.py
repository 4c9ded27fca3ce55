"""Separate actors, the default on a GPU: reading, painting and writing overlap on different processors.

Samples travel between the actors as pickled bytes in a column of blocks in Ray's object store; none of them is written
to storage. With ``gpu_decode`` the read stage leaves plain JPEGs undecoded, and ``DeviceJpegDecoder`` decodes them with
nvJPEG (through torchvision) on the GPU that paints. That decoder has not run on a GPU yet (see docs/performance.md);
the tests run it with torchvision's decoder for CPUs.
"""

from __future__ import annotations

import logging
import pickle
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray.util.metrics
import torch

from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import PlainJpeg
from stylemill.images.source_image import SourceImage
from stylemill.storage import Storage
from stylemill.stylizing.blocks import planned_rows, shard_of
from stylemill.stylizing.fused_actor import Stage
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import WorkerMeters
from stylemill.stylizing.paint import BATCHES_IN_FLIGHT, Painter
from stylemill.stylizing.quarantine import PaintWatch, count_deaths, deaths_of
from stylemill.stylizing.ray_tracker import RayTracker
from stylemill.stylizing.read import Fetched, Reader
from stylemill.stylizing.sample import Sample
from stylemill.stylizing.write import Writer

log = logging.getLogger(__name__)

CONCURRENT_READS = 4
CONCURRENT_WRITES = 4
SAMPLES_PER_BLOCK = 4
"""On a CPU, where each sample is painted alone."""
BLOCK_BYTES = 64 * 2**20
"""A block is closed once it reaches this size: a column of 32 large images would be gigabytes."""


class ReadStage(Stage):
    """Planned rows in, decoded samples out."""

    def __init__(self, job: BulkJob, tracker: RayTracker) -> None:
        super().__init__(job, tracker)
        self._meters = WorkerMeters(ray.util.metrics, job.layout.run_id)
        self._reader = Reader(self._storage, job.config.decode, leave_plain_jpegs=job.config.gpu_decode)
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="read")

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Read one block of a plan shard."""
        self._check()
        shard = shard_of(block)
        todo, given_up = self._remaining_work(shard, planned_rows(block))
        yield from _blocks(self._job, shard, given_up)
        yield from _blocks(self._job, shard, self._pool.map(self._reader, todo))
        self._meters.count_retries()


class PaintStage(Stage):
    """Decoded samples in, painted samples out; holds the GPU."""

    def __init__(self, job: BulkJob, tracker: RayTracker) -> None:
        super().__init__(job, tracker)
        self._ray_tracker = tracker
        self._decode = DeviceJpegDecoder(job.config.paint.device, self._storage, job.config.decode)
        self._watch = PaintWatch(tracker, job.config.paint_timeout_s, job.identity.styles_per_source)

    def _open(self) -> None:
        job = self._job
        self._painter = Painter(self._storage, job.layout, job.identity, job.config, use_idle_cores=job.use_idle_cores)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Paint one block.

        When a worker dies, its block is run again. Images are then painted one at a time, so that only the image being
        painted is blamed for the next death; ``count_deaths`` gives up one that was being painted at two deaths.
        """
        self._check()
        samples = _samples(block)
        deaths = deaths_of(self._tracker, [sample.key for sample in samples])
        portions = [[sample] for sample in samples] if deaths else [samples]
        for portion in portions:
            for sample in portion:
                sample.failure = count_deaths(sample.planned, deaths.get(sample.key)) or sample.failure
            yield from _blocks(self._job, shard_of(block), self._paint(portion))

    def _paint(self, samples: list[Sample]) -> list[Sample]:
        keys = [sample.key for sample in samples if sample.failure is None]
        # Waits for the answers: a report that is not delivered when the process dies is lost.
        self._ray_tracker.begin_and_wait(keys)
        self._decode(samples)
        sound = [sample for sample in samples if sample.failure is None]
        with self._watch({sample.key: self._painter.num_pixels(sample) for sample in sound}):
            painted = self._painter.paint_all(samples)
        # Otherwise samples that wait to be written would be blamed when a reader dies and its block is read again.
        self._ray_tracker.painted(keys)
        return painted


class WriteStage(Stage):
    """Painted samples in, images and pending rows written."""

    def __init__(self, job: BulkJob, tracker: RayTracker) -> None:
        super().__init__(job, tracker)
        self._meters = WorkerMeters(ray.util.metrics, job.layout.run_id)
        self._writer = Writer(self._storage, job.layout, job.identity, job.config.encode)
        self._pool = ThreadPoolExecutor(CONCURRENT_WRITES, thread_name_prefix="write")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Write one block."""
        self._check()
        shard, samples = shard_of(block), _samples(block)
        flusher = self._flusher(shard)
        try:
            for sample, rows in zip(samples, self._pool.map(self._writer, samples), strict=True):
                flusher.add(rows)
                self._meters.count(rows)
                self._tracker.finish([(sample.key, [row["status"] for row in rows])])
        finally:
            flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(samples)]})


def _blocks(job: BulkJob, shard: int, samples: Iterable[Sample]) -> Iterator[pa.Table]:
    """Pack samples into blocks: few per block on a CPU, for a GPU enough to keep it busy, bounded by BLOCK_BYTES."""
    num_samples = BATCHES_IN_FLIGHT * job.config.batch_size if job.config.paint.device == "cuda" else SAMPLES_PER_BLOCK
    waiting: list[bytes] = []
    for sample in samples:
        waiting.append(pickle.dumps(sample, protocol=pickle.HIGHEST_PROTOCOL))
        if len(waiting) == num_samples or sum(map(len, waiting)) >= BLOCK_BYTES:
            yield _block(shard, waiting)
            waiting = []
    if waiting:
        yield _block(shard, waiting)


def _block(shard: int, pickled: list[bytes]) -> pa.Table:
    return pa.table({"shard": [shard] * len(pickled), "sample": pa.array(pickled, pa.large_binary())})


def _samples(block: pa.Table) -> list[Sample]:
    return [pickle.loads(data.as_buffer()) for data in block.column("sample")]  # noqa: S301 (this run's own, in memory)


class DeviceJpegDecoder:
    """Decodes the plain JPEGs that the read stage left undecoded.

    JPEGs that the device cannot decode go to the isolated decoder, whose result counts.

    Args:
        device: where to decode: ``cuda``, or ``cpu`` for torchvision's own libjpeg.
        storage: of the run.
        options: of the isolated decoder.
    """

    def __init__(self, device: str, storage: Storage, options: DecodeOptions) -> None:
        self._device = device
        self._storage = storage
        self._options = options
        self._fallback: Reader | None = None

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
                self._decode_isolated(Fetched(sample, jpeg.data))

    def _decode_isolated(self, fetched: Fetched) -> None:
        if self._fallback is None:  # created on demand: it starts a process that most runs never need here
            self._fallback = Reader(self._storage, self._options)
            log.warning("%s cannot decode every JPEG; the isolated decoder decodes the others", self._device)
        fetched.sample.width_px = fetched.sample.height_px = None  # they came from the header, which may be wrong
        self._fallback.decode(fetched)

    def _decode(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage | None]:
        try:
            return list(self._on_device(jpegs))
        except (RuntimeError, ValueError) as error:
            if len(jpegs) == 1:
                log.debug("%s did not decode a JPEG", self._device, exc_info=error)
                return [None]
        # One bad file makes the whole call fail.
        return [one for jpeg in jpegs for one in self._decode([jpeg])]

    def _on_device(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage]:
        """Return all sources, their pixels in host memory.

        Raises:
            RuntimeError: one of them cannot be decoded, or the device has no decoder or no memory.
            ValueError: the size of one differs from the one in its header.
        """
        from torchvision.io import ImageReadMode, decode_jpeg

        files = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of a package that has its own GPU builds
            images_CHW = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
        stored = [image_CHW.permute(1, 2, 0).contiguous().cpu().numpy() for image_CHW in images_CHW]
        return [jpeg.source(stored_HWC) for jpeg, stored_HWC in zip(jpegs, stored, strict=True)]
