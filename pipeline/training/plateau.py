"""Noticing that the loss has stopped falling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """How the mean loss between checkpoints has developed; a value, carried from checkpoint to checkpoint."""

    best_loss: float = math.inf
    """Lowest mean loss so far."""
    num_without_gain: int = 0
    """Checkpoints since then."""

    def after(self, losses: Sequence[float]) -> Plateau:
        """Return the development after one more checkpoint.

        Args:
            losses: of the steps since the last checkpoint.
        """
        mean = sum(losses) / len(losses) if losses else math.inf
        if mean < self.best_loss:
            return Plateau(best_loss=mean)
        return Plateau(best_loss=self.best_loss, num_without_gain=self.num_without_gain + 1)

    def is_reached(self, patience: int) -> bool:
        """Tell whether ``patience`` checkpoints brought nothing; 0 is endless patience."""
        return 0 < patience <= self.num_without_gain
