"""Content images of a training run: the listing, decoded crops, and batches that are prepared in the background.

``list_content`` lists the images once per run. ``Content`` decodes and caches them and cuts the crop of a sample.
``Batches`` decodes one worker's crops in threads, a few steps ahead of the training.

An image that cannot be decoded does not stop the training: it is left out, counted over all workers, and listed in
``OUT/left_out.json``. Above ``max_failed_fraction`` the run fails.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylemill.errors import AccessDenied, ImageError, ObjectNotFound, TooManyFailures, Unreachable
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.storage import Storage, resolve
from stylemill.storage.sources import find_sources
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import scheme
from stylemill.training.layout import LeftOutImage, num_failed
from stylemill.training.schedule import SampleIndex, Sampler

log = logging.getLogger(__name__)

STEPS_AHEAD = 3
DECODING_THREADS = 2


class ContentImage(NamedTuple):
    """One entry of the listing, which is frozen at the first start of a run."""

    uri: str
    etag: str
    """Changes when the image does; empty if the listing has none."""


def content_from_json(data: bytes) -> tuple[ContentImage, ...]:
    """Return a frozen listing; those of early versions have no etags."""
    entries = json.loads(data)
    return tuple(ContentImage(entry, "") if isinstance(entry, str) else ContentImage(*entry) for entry in entries)


def list_content(
    storage: Storage, locations: Sequence[str], on_problem: Callable[[ObjectStat], object] | None = None
) -> list[ContentImage]:
    """Return all content images: location by location, each in order of key.

    Args:
        storage: holds the images.
        locations: prefixes, globs, files, or lists of locations.
        on_problem: called with each entry that cannot be read as an object, such as a link to a directory.

    Raises:
        ConfigError: a list that names no locations.
        StorageError: a listing failed beyond its retries.
    """
    content = []
    for location in locations:
        for found in find_sources(storage, resolve(location)):
            if found.problem_type is None:
                content.append(ContentImage(found.uri, found.etag))
            elif on_problem is not None:
                on_problem(found)
    return content


class Content:
    """Decoded content images, resized so that a crop is a slice; thread-safe.

    An image that cannot be decoded, or is no longer the one that was listed, is replaced by the next usable one of the
    listing. That choice holds for the rest of the run: checkpoints contain it (``left_out``, ``restore``), because the
    cause may have passed when a run resumes.

    Args:
        storage: holds the images.
        images: the listing.
        crop_px: side of a crop.
        short_side_px: shorter side of the resized images.
        cache_bytes: decoded images are cached up to this total size.
        max_failed_fraction: fraction of broken images above which ``crop`` raises.
        on_left_out: called with each image that is left out; returns the number of broken images over all workers.
            By default this object counts its own.
    """

    def __init__(
        self,
        storage: Storage,
        images: Sequence[ContentImage],
        *,
        crop_px: int,
        short_side_px: int,
        cache_bytes: int,
        max_failed_fraction: float,
        on_left_out: Callable[[LeftOutImage], int] | None = None,
    ) -> None:
        self._storage = storage
        self._images = images
        self._crop_px = crop_px
        # One for each decoding thread; a thread takes whichever is free.
        self._decoders: SimpleQueue[IsolatedDecoder] = SimpleQueue()
        for _ in range(DECODING_THREADS):
            self._decoders.put(IsolatedDecoder(DecodeOptions(), short_side_px))
        self._cache_bytes = cache_bytes
        self._max_failed = max_failed_fraction * len(images)
        self._cache: dict[int, NDArray[np.uint8]] = {}
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._on_left_out = on_left_out or (lambda entry: num_failed(self.left_out.values()))
        self.left_out: dict[str, LeftOutImage] = {}
        """Images that this object cannot use, by location, of those that it has tried."""

    def restore(self, left_out: Iterable[LeftOutImage]) -> None:
        """Leave out exactly these images from now on, as the run did at the checkpoint that is resumed."""
        with self._lock:
            self.left_out = {entry.uri: entry for entry in left_out}

    def crop(self, sample: SampleIndex) -> NDArray[np.uint8]:
        """Return the (crop_px, crop_px, 3) uint8 crop of a sample.

        Raises:
            TooManyFailures: the fraction of broken images is above the limit, or no image can be decoded.
            StorageError: storage failed beyond its retries.
            ClusterError: this machine cannot decode images.
        """
        image_HWC = self._image(sample.image)
        tops, lefts = (side_px - self._crop_px + 1 for side_px in image_HWC.shape[:2])
        top, left = int(sample.position[0] * tops), int(sample.position[1] * lefts)
        return image_HWC[top : top + self._crop_px, left : left + self._crop_px]

    def _image(self, index: int) -> NDArray[np.uint8]:
        for offset in range(len(self._images)):
            image_HWC = self._decoded((index + offset) % len(self._images))
            if image_HWC is not None:
                return image_HWC
        last = next(reversed(self.left_out.values()))
        raise TooManyFailures(f"none of the {len(self._images)} content images can be decoded: {last}")

    def _decoded(self, index: int) -> NDArray[np.uint8] | None:
        uri = self._images[index].uri
        with self._lock:
            if uri in self.left_out:
                return None
            if index in self._cache:
                return self._cache[index]
        try:
            image_HWC = self._decode(self._fetch(self._images[index]))
        except ImageError as failure:
            self._leave_out(LeftOutImage.from_error(uri, failure))
            return None
        with self._lock:
            if index not in self._cache and image_HWC.nbytes + self._cached_bytes <= self._cache_bytes:
                self._cache[index] = image_HWC
                self._cached_bytes += image_HWC.nbytes
        return image_HWC

    def _fetch(self, image: ContentImage) -> bytes:
        try:
            if image.etag and _has_changed(image, self._storage.stat(image.uri)):
                raise ImageError("SourceChanged", "it was replaced after the training had begun")
            return self._storage.read_bytes(image.uri)
        except (ObjectNotFound, AccessDenied, Unreachable) as error:
            raise ImageError("Unreadable", str(error)) from error

    def _decode(self, data: bytes) -> NDArray[np.uint8]:
        decoder = self._decoders.get()
        try:
            return decoder.decode(data).image_HWC
        finally:
            self._decoders.put(decoder)

    def close(self) -> None:
        """End the decoding processes; one that is at work ends with its image."""
        while not self._decoders.empty():
            self._decoders.get().close()

    def _leave_out(self, entry: LeftOutImage) -> None:
        with self._lock:
            self.left_out[entry.uri] = entry
            num_broken = self._on_left_out(entry)
        log.warning("content image %s is left out", entry)
        if num_broken > self._max_failed:
            raise TooManyFailures(
                f"{num_broken} of {len(self._images)} content images cannot be decoded, the last: {entry}; "
                "remove them or raise --max-failed-fraction"
            )


def _has_changed(image: ContentImage, now: ObjectStat) -> bool:
    """Return whether an object is no longer the listed one.

    On file systems only the size counts: a copy on another machine, or one that was fetched again, has another time.
    """
    if scheme(image.uri) == "file":
        return image.etag.rpartition("-")[2] != now.etag.rpartition("-")[2]
    return image.etag != now.etag


class Batches:
    """One worker's part of each step's batch, decoded in threads up to STEPS_AHEAD steps ahead.

    Args:
        content: the images.
        sampler: chooses image and crop of each sample.
        share: maps a step to the global indices of this worker's samples.
    """

    def __init__(self, content: Content, sampler: Sampler, share: Callable[[int], list[int]]) -> None:
        self._content = content
        self._sampler = sampler
        self._share = share
        self._pool = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")

    def steps(self, first: int, end: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the (N, crop_px, crop_px, 3) uint8 crops of steps ``first`` to ``end - 1``."""
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        following = first
        for _ in range(first, end):
            while following < end and len(waiting) < STEPS_AHEAD:
                samples = [self._sampler.sample(index) for index in self._share(following)]
                waiting.append([self._pool.submit(self._content.crop, sample) for sample in samples])
                following += 1
            yield np.stack([crop.result() for crop in waiting.popleft()])

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
