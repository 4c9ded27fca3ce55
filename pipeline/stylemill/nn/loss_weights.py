"""Default weights of the terms of the training loss. Imports no torch, so that configs can use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms, which are normalised so that the defaults suit every loss network."""

    content: float = 1.0
    style: float = 15.0
    total_variation: float = 0.5
    grid: float = 10.0
