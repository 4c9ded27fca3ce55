"""Named sets of values for ``stylemill train --preset NAME``; docs/choosing-a-style.md shows what they give."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, int | float | str]] = {
    "quick": {
        "width": 0.5,
        "crop_px": 160,
        "steps": 500,
        "sample_every": 100,
        # Short trainings of narrow networks come to no lattices, and faces stay clearer.
        "learning_rate": 4e-3,
        "least_view": 1.0,
    },
    "calm": {"style_weight": 6.0},
    "bold": {"style_weight": 40.0},
}
"""Fields of TrainConfig by name of the preset; the config file and flags override them."""
