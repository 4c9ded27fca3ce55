"""What every kind of store offers, and the description of one object.

``LocalStore``, ``S3Store`` and ``FsspecStore`` implement the protocol; ``Storage`` picks one by scheme and retries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stylemill.errors import AccessDenied


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """One object of a store.

    Args:
        uri: full location.
        key: path relative to the listed prefix; the name for a single object.
        size_bytes: size of the content.
        etag: changes when the content does; modification time and size on file systems.
        problem_type: why it cannot be read as an object (``SpecialFile``), or None. ``AccessDenied`` with a key that
            ends with a slash is a folder that may not be listed.
        problem: the same as a sentence.
        label: value of the column that the caller of ``find_sources`` asked a list for.
    """

    uri: str
    key: str
    size_bytes: int
    etag: str
    problem_type: str | None = None
    problem: str | None = None
    label: str | None = None


def denied_folder(uri: str, key: str, after: str, error: Exception) -> Iterator[ObjectStat]:
    """Yield a folder that may not be listed, as a problem among the objects, unless it was listed already.

    Args:
        uri: location of the folder.
        key: of the folder, with a slash at its end: the place of its objects in the order of keys. Empty for the root.
        after: last key that was listed.
        error: the store's refusal.

    Raises:
        AccessDenied: a listing that was interrupted inside the folder cannot continue there. Its first objects are
            sources already: neither the rest of them nor the folder as a problem may follow in silence.
        Exception: ``error``, if the listing as a whole is refused.
    """
    if not key:
        raise error
    if after != key and after.startswith(key):
        cure = "fix its permissions and run the same command again to resume"
        raise AccessDenied(f"the folder {key} cannot be listed beyond {after!r} any more ({error}); {cure}") from error
    if key > after:
        cure = "fix its permissions, then paint what it holds with --incremental"
        yield ObjectStat(uri, key, 0, "", "AccessDenied", f"the folder cannot be listed ({error}); {cure}")


class Store(Protocol):
    """Operations of one kind of store; they raise TransientError where another attempt may succeed."""

    def read(self, path: str) -> bytes:
        """Return the whole content of an object."""

    def read_range(self, path: str, start: int, size_bytes: int) -> bytes:
        """Return at most ``size_bytes`` of an object, from the byte ``start`` on; none at or after its end."""

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace an object in one step; ``durable`` also forces it to the disk of a local file system."""

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write an object unless it exists; return whether it was written. ``durable`` as for ``write``."""

    def stat(self, path: str) -> ObjectStat:
        """Return size and etag of an object."""

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield the objects below a prefix whose keys are greater than ``after``, in order of key."""

    def delete(self, path: str) -> None:
        """Remove an object; a missing object is not an error."""

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove at most 1,000 objects of one bucket or file system."""

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Remove half-written files and empty directories below a prefix that have not changed for this long."""
