"""The metrics by which styles can be compared."""

from __future__ import annotations

from typing import Final

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
"""Columns of the table of measurements."""
HIGHER_IS_BETTER: Final = frozenset({"structural_similarity"})
"""Of all others less is better. ``color_shift`` has no good direction of its own: less keeps more."""
