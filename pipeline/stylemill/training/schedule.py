"""Which image and which crop a sample is, and how the loss looks at a step: functions of the seed and an index alone.

It does not depend on the number of workers, and a resumed run sees exactly the samples that an undisturbed one would.

The learning rate of each step: a function of the step alone, so that resuming needs no state.

Noticing that the loss has stopped falling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylemill.nn.losses import WHOLE, LossView

_ORDER, _CROP, _VIEW = 1, 2, 3
"""Streams of the seed: one orders the epochs, one places the crops, one says how the loss looks at a step's results."""
_MARGIN = 16
"""A view leaves out a sixteenth of the crop's rows and columns."""


@dataclass(frozen=True)
class SampleIndex:
    """One sample.

    Args:
        image: index into the content listing.
        position: of the crop, two numbers in [0, 1): down and across.
    """

    image: int
    position: tuple[float, float]


class Sampler:
    """Every image once per epoch, in an order of its own for each epoch.

    Args:
        num_images: length of the content listing.
        seed: of the run.
    """

    def __init__(self, num_images: int, seed: int) -> None:
        if num_images < 1:
            raise ValueError("there is nothing to sample from")
        self.num_images = num_images
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def sample(self, index: int) -> SampleIndex:
        """Return the sample with this global index."""
        epoch, place = divmod(index, self.num_images)
        if epoch != self._epoch:
            self._order = np.random.Generator(np.random.PCG64([self._seed, _ORDER, epoch])).permutation(self.num_images)
            self._epoch = epoch
        down, across = np.random.Generator(np.random.PCG64([self._seed, _CROP, index])).random(2)
        return SampleIndex(int(self._order[place]), (float(down), float(across)))

    def view(self, step: int, crop_px: int, least_scale: float) -> LossView:
        """Return how the loss looks at a step's results, all of them alike.

        Args:
            step: from 0.
            crop_px: side of the crops.
            least_scale: of the view; at 1 it is whole.
        """
        if least_scale == 1:
            return WHOLE
        scale, down, across = np.random.Generator(np.random.PCG64([self._seed, _VIEW, step])).random(3)
        margin_px = crop_px // _MARGIN
        return LossView(
            scale=least_scale + (1 - least_scale) * float(scale),
            margin_px=margin_px,
            top_px=int(down * (margin_px + 1)),
            left_px=int(across * (margin_px + 1)),
        )

    def share(self, step: int, batch_size: int, rank: int, num_workers: int) -> list[int]:
        """Return the global indices of one worker's part of a step's batch.

        Args:
            step: from 0.
            batch_size: samples of a step over all workers.
            rank: of the worker.
            num_workers: in all; need not divide the batch.
        """
        return list(range(step * batch_size + rank, (step + 1) * batch_size, num_workers))


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
