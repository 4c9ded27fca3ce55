"""What a registry writes down: versions and promotions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from stylemill.errors import RegistryError

PromotionKind = Literal["promoted", "rolled_back"]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A JSON object of its own in storage."""

    def to_bytes(self) -> bytes:
        """Return the object's content."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> Self:
        """Read an object.

        Raises:
            RegistryError: it is damaged, or of another schema.
        """
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise RegistryError(f"{uri} is damaged ({error}); restore it from a backup of the registry") from error


@dataclass(frozen=True, kw_only=True)
class Version(_Record):
    """One trained model of a style; never changed."""

    style: str
    version: str
    sha256: str
    """Hex digest of the model file."""
    size_bytes: int
    added_at: str
    """UTC, ISO 8601."""
    added_by: str
    source_uri: str
    """Where the file was taken from."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Promotion(_Record):
    """One change of a style's champion; together they are its history."""

    number: int
    """1 for the first; the highest stands."""
    kind: PromotionKind
    style: str
    version: str
    sha256: str
    """Of the model that became champion."""
    previous_version: str | None
    at: str
    """UTC, ISO 8601, by the clock of the machine that decided; the order is that of the numbers."""
    by: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    """Figures that the decision rests on."""
