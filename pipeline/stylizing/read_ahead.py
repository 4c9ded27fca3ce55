"""Reading the next sources while one is painted, within a bound on the pixels that lie about."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.stylizing.reader import Fetched, Reader
from pipeline.stylizing.sample import Sample

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
