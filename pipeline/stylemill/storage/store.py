"""What a listing or a HEAD says about one object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """One object of a store.

    Args:
        uri: full location.
        key: path relative to the listed prefix; the name for a single object.
        size_bytes: of the content.
        etag: changes when the content does; modification time and size on file systems.
        problem_type: why it cannot be read as an object (``SpecialFile``), or None.
        problem: the same as a sentence.
    """

    uri: str
    key: str
    size_bytes: int
    etag: str
    problem_type: str | None = None
    problem: str | None = None
