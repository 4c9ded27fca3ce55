"""Writing: encodes and stores the painted images, and collects their manifest rows.

``Writer`` stores an image before it returns the row for it. An object is created and never replaced, whoever wrote it:
rows stay true whatever other runs, abandoned ones, or requests that arrive late do. If an image's name is taken by
other bytes, the digest becomes part of its name. ``Flusher`` collects rows and writes them to ``pending/``.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from stylemill.errors import (
    AccessDenied,
    ConfigError,
    ImageError,
    ObjectNotFound,
    PathConflict,
    StorageError,
    Unreachable,
)
from stylemill.images.encode import encode_painted, output_format_of
from stylemill.images.formats.sniff import READABLE, SNIFF_BYTES, sniff
from stylemill.images.options import EncodeOptions, output_key
from stylemill.manifest.commit import FLUSH_ROWS, FLUSH_SECONDS, write_pending
from stylemill.manifest.layout import RunLayout
from stylemill.storage import Storage, join
from stylemill.storage.lease import Lease
from stylemill.storage.uri import scheme
from stylemill.stylizing.identity import RunIdentity, StyleRef
from stylemill.stylizing.sample import Sample, failure_columns, manifest_row


class Writer:
    """Writes the images of a painted sample and returns its rows, one per style that it is painted in.

    Args:
        storage: where the results go.
        layout: of the run.
        identity: the run and its styles.
        options: format, quality, metadata.
    """

    def __init__(self, storage: Storage, layout: RunLayout, identity: RunIdentity, options: EncodeOptions) -> None:
        self._storage = storage
        self._layout = layout
        self._identity = identity
        self._options = options
        self._has_folders = scheme(layout.out) == "file"

    def __call__(self, sample: Sample) -> list[dict[str, Any]]:
        """Write one sample.

        Raises:
            StorageError: storage failed beyond its retries.
        """
        return [self._row(sample, style) for style in self._identity.styles if sample.is_in(style.name)]

    def _row(self, sample: Sample, style: StyleRef) -> dict[str, Any]:
        try:
            if sample.failure is not None:
                raise sample.failure
            columns = self._write(sample, style)
        except ImageError as failure:
            columns = dict(failure_columns(failure))
        return manifest_row(sample, style, self._identity.run_id, **columns)

    def _write(self, sample: Sample, style: StyleRef) -> dict[str, Any]:
        painted = sample.painted[style.name]
        if isinstance(painted, ImageError):
            raise painted
        assert sample.source is not None
        start_s = time.perf_counter()
        encoded = encode_painted(painted.frames_HWC, sample.source, self._options)
        encode_ms = 1000 * (time.perf_counter() - start_s)
        key = output_key(sample.key, encoded.format)
        self._check_collision(sample, key)
        sha256 = hashlib.sha256(encoded.data).hexdigest()
        uri = self._put(join(self._layout.images_uri(style.folder), key), encoded.data, sha256)
        return {
            "status": "ok",
            "output_uri": uri,
            "output_bytes": len(encoded.data),
            "output_sha256": sha256,
            "output_format": encoded.format,
            "width_px": encoded.width_px,
            "height_px": encoded.height_px,
            "forward": painted.forward,
            "stylize_ms": painted.stylize_ms,
            "encode_ms": encode_ms,
            "note": "; ".join((*sample.notes, *encoded.notes)) or None,
        }

    def _put(self, uri: str, data: bytes, sha256: str) -> str:
        """Store an image and return its location: the given one unless other bytes are there."""
        try:
            for mark in ("", sha256[:12], secrets.token_hex(8)):  # the last one if the second one's object is damaged
                place = _marked(uri, mark)
                if self._storage.create_bytes(place, data, durable=False) or self._holds(place, data):
                    return place
        except PathConflict as error:
            raise ImageError("KeyCollision", f"the store cannot hold a result of this name: {error}") from error
        raise StorageError(f"{place} was created by another process a moment ago")

    def _holds(self, uri: str, data: bytes) -> bool:
        try:
            return self._storage.stat(uri).size_bytes == len(data) and self._storage.read_bytes(uri) == data
        except ObjectNotFound:  # removed since
            return False

    def _check_collision(self, sample: Sample, key: str) -> None:
        """Fail the later of two sources whose results cannot both be stored, whichever is painted first.

        The contents of the twins (see ``plan.TwinFinder``) decide: the result of an image gets the name that its format
        requires. In a file system, that name cannot be a folder as well.
        """
        for twin in sample.planned["twins"] or ():
            for taken in self._names_of(twin):
                if key == taken:
                    reason = f"the result of {twin['key']!r} has this name too"
                elif self._has_folders and key.startswith(taken + "/"):
                    reason = f"the result of {twin['key']!r} is a file where this one needs a folder"
                else:
                    continue
                raise ImageError("KeyCollision", f"{reason}; rename one of the sources")

    def _names_of(self, twin: Mapping[str, str]) -> set[str]:
        """Return the keys that a source's result may get, judged by its first bytes; none if it is not an image."""
        try:
            twin_format = sniff(self._storage.read_head(twin["uri"], SNIFF_BYTES))
        except (ObjectNotFound, AccessDenied, PathConflict, ConfigError):  # it cannot be painted either
            return set()
        except Unreachable:  # it may have been read before, or may be by another process
            return self._names_as(twin["key"], READABLE)
        return self._names_as(twin["key"], [one for one in READABLE if one == twin_format])

    def _names_as(self, key: str, source_formats: Iterable[str]) -> set[str]:
        """Return the keys that the result of an image of some of these formats may get."""
        both = product(source_formats, (False, True))
        formats = {output_format_of(one, has_alpha=alpha, options=self._options) for one, alpha in both}
        return {output_key(key, output_format) for output_format in formats}


def _marked(uri: str, mark: str) -> str:
    """Return a location with a mark in its name: ``a/b.jpg`` becomes ``a/b~0123456789ab.jpg``."""
    if not mark:
        return uri
    folder, slash, file_name = uri.rpartition("/")
    stem, dot, suffix = file_name.rpartition(".")
    return f"{folder}{slash}{stem}~{mark}{dot}{suffix}"


class Flusher:
    """Writes the rows of one plan shard every 32 images or 10 seconds, while the run's lease is valid.

    Args:
        storage: where the run is.
        layout: of the run.
        shard: of all rows.
        lease: checked before each write, so that a fenced worker writes no rows.
    """

    def __init__(self, storage: Storage, layout: RunLayout, shard: int, lease: Lease) -> None:
        self._storage = storage
        self._layout = layout
        self._shard = shard
        self._lease = lease
        self._rows: list[dict[str, Any]] = []
        self._num_images = 0
        self._last_s = time.monotonic()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take the rows of one finished source."""
        self._rows += rows
        self._num_images += 1
        if self._num_images >= FLUSH_ROWS or time.monotonic() - self._last_s > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows.

        Raises:
            RunConflict: another process has taken the run over.
        """
        if self._rows:
            self._lease.check()
            write_pending(self._storage, self._layout, self._shard, self._rows)
        self._rows, self._num_images, self._last_s = [], 0, time.monotonic()
