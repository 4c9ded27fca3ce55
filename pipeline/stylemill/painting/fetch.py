"""Fetching a source: its bytes, or why they cannot be had, as an ImageError."""

from __future__ import annotations

import contextlib

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
from stylemill.storage import Storage
from stylemill.storage.uri import scheme

_SKIPPED_PROBLEMS = ("SpecialFile", "DirectoryLink")
"""Problems that listing found in things that are not images: their status is ``skipped``, not ``failed``."""


def listed_problem(problem_type: str, problem: str) -> ImageError:
    """Return what listing found wrong with a source: NotAnImage for a device, a pipe or a link to a folder."""
    kind = NotAnImage if problem_type in _SKIPPED_PROBLEMS else ImageError
    return kind(problem_type, problem)


def fetch_source(storage: Storage, uri: str, size_bytes: int, max_source_bytes: int) -> bytes:
    """Return the content of a source.

    Args:
        storage: where it is.
        uri: its location.
        size_bytes: its size as listed; 0 if that is unknown, as in lists of locations.
        max_source_bytes: the most that is read.

    Raises:
        ImageError: it is gone, too large, or cannot be read.
        StorageError: storage failed beyond its retries.
    """
    try:
        return _bounded_bytes(storage, uri, size_bytes, max_source_bytes)
    except ObjectNotFound as error:
        raise ImageError("SourceVanished", str(error)) from error
    except RedirectLoop as error:
        raise ImageError("RedirectLoop", f"it cannot be read: {error}") from error
    except Unreachable as error:
        raise ImageError("SourceUnreachable", f"it cannot be read: {error}") from error
    except (AccessDenied, PathConflict) as error:
        raise ImageError("AccessDenied", f"it cannot be read: {error}") from error
    except ConfigError as error:  # a list names a location of a kind that this machine cannot read
        raise ImageError("AccessDenied", f"it cannot be read: {uri} {error.problem}; {error.cure}") from error


def _bounded_bytes(storage: Storage, uri: str, size_bytes: int, most_bytes: int) -> bytes:
    if scheme(uri) in ("http", "https"):
        # Many hosts tell no size, or a wrong one, or send more than last time: the reading itself is bounded.
        data = storage.read_head(uri, most_bytes + 1)
        if len(data) > most_bytes:
            raise ImageError("TooLarge", f"it has more bytes than max_source_bytes = {most_bytes:,}")
        return data
    if not size_bytes:
        # What stands in the way is raised with its reason by the reading: a folder is no file, but it is there.
        with contextlib.suppress(ObjectNotFound, AccessDenied, PathConflict):
            size_bytes = storage.stat(uri).size_bytes
    if size_bytes > most_bytes:
        raise ImageError("TooLarge", f"{size_bytes:,} bytes are more than max_source_bytes = {most_bytes:,}")
    return storage.read_bytes(uri)
