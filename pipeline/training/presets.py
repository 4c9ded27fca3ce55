"""Named sets of values for ``stylemill train --preset NAME``; docs/choosing-a-style.md shows what they give."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, int | float | str]] = {
    "quick": {"width": 0.5, "crop_px": 160, "steps": 500, "style_weight": 8.0, "sample_every": 100},
    "calm": {"style_size_px": 160},
    "bold": {"style_size_px": 200, "style_weight": 20.0},
}
"""Fields of TrainConfig by name of the preset; the config file and flags override them."""
