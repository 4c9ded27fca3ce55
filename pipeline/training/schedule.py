"""The learning rate of each step: a function of the step alone, so that resuming needs no state."""

from __future__ import annotations

import math

WARM_UP = 0.2
"""Share of the steps in which the rate rises."""
START_DIVISOR = 25.0
END_DIVISOR = 1e4


def one_cycle(step: int, steps: int, highest: float) -> float:
    """Return the rate of a step: a cosine up to the highest rate, then a longer one down to almost nothing.

    Args:
        step: from 0.
        steps: of the run.
        highest: rate of the cycle.

    Source: Smith and Topin 2017, arXiv:1708.07120, with cosine slopes.
    """
    peak = max(1.0, WARM_UP * steps)
    if step < peak:
        return _cosine(highest / START_DIVISOR, highest, step / peak)
    return _cosine(highest, highest / END_DIVISOR, min(1.0, (step - peak) / max(1.0, steps - 1 - peak)))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
