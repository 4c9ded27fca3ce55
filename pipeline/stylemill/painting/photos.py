"""The photos that a command line names, listed before anything is painted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylemill.errors import ConfigError, config_errors_for
from stylemill.painting.fetch import fetch_source, listed_problem
from stylemill.storage import Storage, resolve
from stylemill.storage.sources import find_sources, input_covers, sources_root
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import name, real_location, scheme, shown
from stylemill.storage.user_errors import listing_input

STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo to paint."""

    key: str
    """Path relative to the folder that was named; the name of a single file."""

    is_named: bool
    """It was named itself, not found in a folder: then it is an error if it is not an image."""

    found: ObjectStat | None
    """None for standard input."""

    @property
    def uri(self) -> str:
        """Location; ``-`` for standard input."""
        return self.found.uri if self.found else STANDARD_INPUT

    @property
    def shown(self) -> str:
        """The photo in messages of one line: where it is, without a signature."""
        return printable(shown(self.uri)) if self.found else "standard input"

    def fetch(self, storage: Storage, max_source_bytes: int) -> bytes:
        """Return its bytes.

        Raises:
            ImageError: it cannot be read, or is too large.
            StorageError: storage failed beyond its retries.
        """
        if self.found is None:
            return sys.stdin.buffer.read(max_source_bytes + 1)  # decoding refuses one byte too many
        if self.found.problem_type:
            raise listed_problem(self.found.problem_type, self.found.problem or "")
        return fetch_source(storage, self.found.uri, self.found.size_bytes, max_source_bytes)


def printable(location: str) -> str:
    """Return a location for one line of a terminal; what it cannot show, such as a line break, is escaped."""
    return location if location.isprintable() else repr(location)


def find_photos(storage: Storage, locations: Sequence[str]) -> list[Photo]:
    """Return the photos at these locations, each once, in the order in which they were named.

    Raises:
        ConfigError: there is nothing at one of them, or it cannot be listed.
    """
    photos: dict[str, Photo] = {}
    for location in locations:
        for photo in _photos_at(storage, location):
            photos.setdefault(photo.uri, photo)
    return list(photos.values())


def _photos_at(storage: Storage, location: str) -> Iterator[Photo]:
    if location == STANDARD_INPUT:
        if sys.stdin is None:  # Python's value for a descriptor that was closed when the process started
            raise ConfigError("photo", location, "means standard input, which is closed", "send a photo: < photo.jpg")
        yield Photo(key="stdin", is_named=True, found=None)
        return
    with config_errors_for("photo"):
        root = resolve(location)
    if scheme(root) in ("http", "https"):  # fetched once: no listing, no look at its size
        yield Photo(
            key=name(shown(root).removesuffix("?...")), is_named=True, found=ObjectStat(root, name(root), 0, "")
        )
        return
    is_empty = True
    with listing_input("photo", location), config_errors_for("photo"):
        for found in find_sources(storage, root):
            is_empty = False
            yield Photo(key=found.key, is_named=found.uri == root, found=found)
    if is_empty:
        is_there = scheme(root) == "file" and Path(root).is_dir()
        problem = "contains no files" if is_there else "does not exist"
        raise ConfigError("photo", location, problem, "name a photo, a folder or a glob in quotes")


def check_outside(storage: Storage, locations: Sequence[str], field: str, value: str, folder: str) -> None:
    """Refuse a folder of results in which the same command would find photos when it is run again.

    Args:
        storage: where the photos are.
        locations: of the photos, as the user gave them.
        field: that the folder comes from.
        value: of this field, as the user gave it.
        folder: resolved location.

    Raises:
        ConfigError: the folder is inside one of the locations.
    """
    for location in locations:
        uri = STANDARD_INPUT if location == STANDARD_INPUT else resolve(location)
        if uri == STANDARD_INPUT or scheme(uri) in ("http", "https"):
            continue
        root = sources_root(storage, uri)
        real = real_location(root)
        if input_covers(real, real + uri.removeprefix(root), real_location(folder)):
            cure = f"choose one outside of {location}; the next run would paint it"
            raise ConfigError(field, value, "is inside the photos", cure)
