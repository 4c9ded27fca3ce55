"""Records of a registry: versions of styles, and promotions. Each is a JSON object in storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PromotionKind = Literal["promoted", "rolled_back"]


@dataclass(frozen=True, kw_only=True)
class Version:
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
    """Location that the file was added from."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One change of a style's champion; all of them are its history."""

    number: int
    """1 for the first; the highest number is the current champion."""
    kind: PromotionKind
    style: str
    version: str
    sha256: str
    """Hex digest of the model that became champion."""
    previous_version: str | None
    at: str
    """UTC, ISO 8601, by the clock of the machine that decided; the order of promotions is that of their numbers."""
    by: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    """Figures behind the decision."""
