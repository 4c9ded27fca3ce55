"""Reading: fetches the bytes of a source and decodes them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from stylemill.errors import (
    AccessDenied,
    ConfigError,
    ImageError,
    NotAnImage,
    ObjectNotFound,
    PathConflict,
    RedirectLoop,
    Unreachable,
)
from stylemill.images.formats.sniff import SNIFF_BYTES, sniff
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import plain_jpeg
from stylemill.storage import Storage
from stylemill.storage.uri import scheme
from stylemill.stylizing.sample import Sample

_SKIPPED_PROBLEMS = ("SpecialFile", "DirectoryLink")
"""Problems that listing found in things that are not images: their status is ``skipped``, not ``failed``."""


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
            kind = NotAnImage if planned["problem_type"] in _SKIPPED_PROBLEMS else ImageError
            raise kind(planned["problem_type"], planned["problem"])
        data = self._fetch(planned["uri"], planned["size_bytes"])
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

    def _fetch(self, uri: str, size_bytes: int) -> bytes:
        try:
            return self._bounded_bytes(uri, size_bytes)
        except ObjectNotFound as error:
            raise ImageError("SourceVanished", f"it was planned but is gone: {error}") from error
        except RedirectLoop as error:
            raise ImageError("RedirectLoop", f"it cannot be read: {error}") from error
        except Unreachable as error:
            raise ImageError("SourceUnreachable", f"it cannot be read: {error}") from error
        except (AccessDenied, PathConflict) as error:
            raise ImageError("AccessDenied", f"it cannot be read: {error}") from error
        except ConfigError as error:  # a list names a location of a kind that this machine cannot read
            raise ImageError("AccessDenied", f"it cannot be read: {uri} {error.problem}; {error.cure}") from error

    def _bounded_bytes(self, uri: str, size_bytes: int) -> bytes:
        """Return the content of a source unless it is too large; 0 is an unknown size, as in lists of locations."""
        most_bytes = self._options.max_source_bytes
        if scheme(uri) in ("http", "https"):
            # Many hosts tell no size, or a wrong one, or send more than last time: the reading itself is bounded.
            data = self._storage.read_head(uri, most_bytes + 1)
            if len(data) > most_bytes:
                raise ImageError("TooLarge", f"it has more bytes than max_source_bytes = {most_bytes:,}")
            return data
        if not size_bytes:
            # What stands in the way is raised with its reason by the reading: a folder is no file, but it is there.
            with contextlib.suppress(ObjectNotFound, AccessDenied, PathConflict):
                size_bytes = self._storage.stat(uri).size_bytes
        if size_bytes > most_bytes:
            raise ImageError("TooLarge", f"{size_bytes:,} bytes are more than max_source_bytes = {most_bytes:,}")
        return self._storage.read_bytes(uri)


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
