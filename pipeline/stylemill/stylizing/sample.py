"""A sample: one source as it passes from reading through painting to writing, and its manifest rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.plain_jpeg import PlainJpeg
from stylemill.images.source_image import SourceImage
from stylemill.stylizing.identity import StyleRef


@dataclass(kw_only=True)
class Painted:
    """The result of painting one source in one style."""

    frames_HWC: list[NDArray[np.uint8]]
    """One (H, W, 3) uint8 image, or one per frame of an animation."""

    forward: str
    """``whole``, ``batch`` or ``tiled``."""

    stylize_ms: float


@dataclass(kw_only=True)
class Sample:
    """One planned source, filled in by the stages; a stage skips a sample that has failed."""

    planned: dict[str, Any]
    """Its row of PLAN_SCHEMA."""

    source: SourceImage | None = None
    jpeg: PlainJpeg | None = None
    """Set instead of ``source`` until the GPU that paints has decoded it."""
    source_bytes: int | None = None
    source_sha256: str | None = None
    source_format: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    notes: tuple[str, ...] = ()
    decode_ms: float | None = None
    failure: ImageError | None = None
    painted: dict[str, Painted | ImageError] = field(default_factory=dict)
    """By style."""

    def is_in(self, style: str) -> bool:
        """Return whether the source is painted in a style of the run."""
        chosen = self.planned.get("style")
        return chosen is None or chosen == style

    @property
    def key(self) -> str:
        """Identity of the source."""
        return str(self.planned["key"])


def manifest_row(sample: Sample, style: StyleRef, run_id: str, **columns: Any) -> dict[str, Any]:
    """Return a row of MANIFEST_SCHEMA for one source and style.

    Args:
        sample: the source.
        style: the style.
        run_id: the run.
        columns: those that depend on the outcome, such as ``status``.
    """
    size_bytes = sample.source_bytes if sample.source_bytes is not None else sample.planned["size_bytes"]
    row = {
        "key": sample.key,
        "source_uri": sample.planned["uri"],
        "source_bytes": size_bytes,
        "source_etag": sample.planned["etag"],
        "source_sha256": sample.source_sha256,
        "source_format": sample.source_format,
        "source_width_px": sample.width_px,
        "source_height_px": sample.height_px,
        "style": style.name,
        "style_version": style.version,
        "model_sha256": style.model_sha256,
        "fingerprint": style.fingerprint,
        "run_id": run_id,
        "attempt": sample.planned["attempt"],
        "decode_ms": sample.decode_ms,
        "note": "; ".join(sample.notes) or None,
        "finished_at": datetime.now(UTC),
        **columns,
    }
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def failure_columns(failure: ImageError) -> Mapping[str, Any]:
    """Return the columns that explain why a source has no result."""
    return {
        "status": "skipped" if isinstance(failure, NotAnImage) else "failed",
        "error_type": failure.error_type,
        "error": failure.message,
    }
