"""Content images that cannot be decoded: each is left out, counted, and listed in ``OUT/left_out.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pipeline.errors import ImageError, NotAnImage, ObjectNotFound
from pipeline.storage import Storage

FAILED, SKIPPED = "failed", "skipped"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One content image that training does without."""

    uri: str
    status: str
    """``failed``: an image that cannot be decoded; ``skipped``: by its content no image, which nobody minds."""
    error_type: str
    error: str

    @classmethod
    def from_error(cls, uri: str, error: ImageError) -> LeftOut:
        """Return the entry for what a decoder raised."""
        status = SKIPPED if isinstance(error, NotAnImage) else FAILED
        return cls(uri=uri, status=status, error_type=error.error_type, error=error.message)

    def __str__(self) -> str:
        return f"{self.uri} ({self.error_type}: {self.error})"


def num_failed(left_out: Iterable[LeftOut]) -> int:
    """Return how many are broken images; notes and sidecars among the images do not count."""
    return sum(entry.status == FAILED for entry in left_out)


def save_left_out(storage: Storage, uri: str, left_out: Iterable[LeftOut]) -> None:
    """Write the list, in order of location."""
    entries = [asdict(entry) for entry in sorted(left_out, key=lambda entry: entry.uri)]
    storage.write_bytes(uri, json.dumps(entries, indent=1, ensure_ascii=False).encode())


def load_left_out(storage: Storage, uri: str) -> list[LeftOut]:
    """Return what earlier starts of the run have listed; a damaged list is begun again."""
    try:
        return [LeftOut(**entry) for entry in json.loads(storage.read_bytes(uri))]
    except (ObjectNotFound, ValueError, TypeError):
        return []
