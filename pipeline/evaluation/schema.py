"""The table of measurements: one row per image and model."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

METRICS: Final = (
    "total_loss",
    "content_loss",
    "style_loss",
    "tv_loss",
    "grid_loss",
    "checkerboard",
    "color_shift",
    "structural_similarity",
    "seconds",
)
"""Columns that can be compared."""
HIGHER_IS_BETTER: Final = frozenset({"structural_similarity"})
"""Of the metrics; of all others less is better. ``color_shift`` has no good direction of its own: less keeps more."""

EVALUATION_SCHEMA: Final = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_sha256", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stratum", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        *(pa.field(name, pa.float64()) for name in METRICS),
        pa.field("style_loss_by_layer", pa.list_(pa.float64())),
        pa.field("picture_uri", pa.string()),
        pa.field("source_picture_uri", pa.string()),
        pa.field("judge", pa.string(), nullable=False),
    ]
)
"""``model`` is NAME-VERSION; ``status`` is ok, failed or skipped; ``judge`` is the digest of loss network, style image,
weights and size: only rows of one judge can be compared."""
