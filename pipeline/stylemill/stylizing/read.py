"""Reading: fetches the bytes of a source and decodes them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from stylemill.errors import ImageError
from stylemill.images.formats.sniff import SNIFF_BYTES, sniff
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import plain_jpeg
from stylemill.painting.fetch import fetch_source, listed_problem
from stylemill.storage import Storage
from stylemill.stylizing.sample import Sample


class Fetched(NamedTuple):
    """The bytes of a source; empty if fetching failed, with the reason in the sample."""

    sample: Sample
    data: bytes


class Reader:
    """Turns planned rows into decoded samples; a bad source is a sample with a failure, never an exception.

    Args:
        storage: where the sources are.
        options: limits, isolation, which frames.
        leave_plain_jpegs: leave plain JPEGs undecoded, for the GPU that paints.
    """

    def __init__(self, storage: Storage, options: DecodeOptions, *, leave_plain_jpegs: bool = False) -> None:
        self._storage = storage
        self._options = options
        self._leave_plain_jpegs = leave_plain_jpegs
        self._decoder = IsolatedDecoder(options)

    def __call__(self, planned: Mapping[str, Any]) -> Sample:
        """Read one source.

        Raises:
            StorageError: storage failed beyond its retries.
        """
        return self.decode(self.fetch(planned))

    def fetch(self, planned: Mapping[str, Any]) -> Fetched:
        """Fetch the bytes of one source.

        Raises:
            StorageError: storage failed beyond its retries.
        """
        sample = Sample(planned=dict(planned))
        try:
            return Fetched(sample, self._checked_bytes(sample))
        except ImageError as failure:
            sample.failure = failure
            return Fetched(sample, b"")

    def decode(self, fetched: Fetched) -> Sample:
        """Decode the bytes of one source.

        Raises:
            ClusterError: this machine cannot start a decoder.
        """
        sample = fetched.sample
        if sample.failure is None and not (self._leave_plain_jpegs and _leave_undecoded(fetched, self._options)):
            try:
                self._decode(sample, fetched.data)
            except ImageError as failure:
                sample.failure = failure
        return sample

    def _checked_bytes(self, sample: Sample) -> bytes:
        planned = sample.planned
        if planned["problem_type"]:
            raise listed_problem(planned["problem_type"], planned["problem"])
        most_bytes = self._options.max_source_bytes
        data = fetch_source(self._storage, planned["uri"], planned["size_bytes"], most_bytes)
        sample.source_bytes = len(data)
        sample.source_sha256 = hashlib.sha256(data).hexdigest()
        sample.source_format = sniff(data[:SNIFF_BYTES])
        return data

    def _decode(self, sample: Sample, data: bytes) -> None:
        start_s = time.perf_counter()
        try:
            source = self._decoder.decode(data)
        finally:
            sample.decode_ms = 1000 * (time.perf_counter() - start_s)
        sample.source, sample.source_format, sample.notes = source, source.source_format, source.notes
        sample.width_px, sample.height_px = source.width_px, source.height_px


def _leave_undecoded(fetched: Fetched, options: DecodeOptions) -> bool:
    """Keep a plain JPEG undecoded in its sample and return True; return False for everything else."""
    sample, start_s = fetched.sample, time.perf_counter()
    jpeg = plain_jpeg(fetched.data, options)
    if jpeg is None:
        return False
    sample.jpeg, sample.source_format = jpeg, "jpeg"
    sample.width_px, sample.height_px = jpeg.width_px, jpeg.height_px
    sample.decode_ms = 1000 * (time.perf_counter() - start_s)
    return True
