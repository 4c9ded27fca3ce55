"""The samples, loss views and learning rate of each step, and the rule for stopping early.

Samples and views depend only on the seed and a global index: not on the number of workers, and a resumed run sees
exactly the samples of an undisturbed one. The learning rate depends only on the step, so resuming needs no state.
``Plateau``, which detects that the loss has stopped falling, is saved with each checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylemill.nn.losses import FULL_VIEW, LossView
from stylemill.training.small_change import SHIFT_PX, SmallChange

_ORDER, _CROP, _VIEW, _CHANGE = 1, 2, 3, 4
"""Random streams of the seed: the order of each epoch, the position of each crop, the loss view and the small change
of each step."""
_MARGIN = 16
"""A loss view omits a sixteenth of the crop's rows and columns."""
WARM_UP = 0.2
"""Fraction of the steps during which the learning rate rises."""
START_DIVISOR = 25.0
END_DIVISOR = 1e4
"""The learning rate starts at the highest rate / START_DIVISOR and ends at the highest rate / END_DIVISOR."""


@dataclass(frozen=True)
class SampleIndex:
    """Image and crop of one sample.

    Args:
        image: index into the content listing.
        position: of the crop: vertical and horizontal, each in [0, 1).
    """

    image: int
    position: tuple[float, float]


def smallest_view_px(crop_px: int, least_scale: float) -> int:
    """Return the side of the smallest view that ``Sampler.view`` gives of crops of this side."""
    view = FULL_VIEW if least_scale == 1 else LossView(scale=least_scale, margin_px=crop_px // _MARGIN)
    return view.viewed_px(crop_px)


class Sampler:
    """Draws every image once per epoch, in a different order each epoch.

    Args:
        num_images: length of the content listing.
        seed: of the run.
    """

    def __init__(self, num_images: int, seed: int) -> None:
        if num_images < 1:
            raise ValueError("num_images is below 1")
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
        """Return the loss view of a step, the same for all its samples.

        Args:
            step: from 0.
            crop_px: side of the crops.
            least_scale: smallest scale of a view; at 1 every view is the whole crop.
        """
        if least_scale == 1:
            return FULL_VIEW
        scale, down, across = np.random.Generator(np.random.PCG64([self._seed, _VIEW, step])).random(3)
        margin_px = crop_px // _MARGIN
        return LossView(
            scale=least_scale + (1 - least_scale) * float(scale),
            margin_px=margin_px,
            top_px=int(down * (margin_px + 1)),
            left_px=int(across * (margin_px + 1)),
        )

    def change(self, step: int) -> SmallChange:
        """Return the small change of a step, the same for all its samples, for ``--steady-weight``."""
        generator = np.random.Generator(np.random.PCG64([self._seed, _CHANGE, step]))
        down_px, across_px = (int(shift) for shift in generator.integers(0, SHIFT_PX + 1, 2))
        return SmallChange(down_px=down_px, across_px=across_px, seed=int(generator.integers(2**31)))

    def share(self, step: int, batch_size: int, rank: int, num_workers: int) -> list[int]:
        """Return the global sample indices of one worker's part of a step's batch.

        Args:
            step: from 0.
            batch_size: samples of a step over all workers.
            rank: of the worker.
            num_workers: total number; need not divide the batch.
        """
        return list(range(step * batch_size + rank, (step + 1) * batch_size, num_workers))


def one_cycle(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step: a cosine rise to the highest rate, then a longer cosine fall.

    Args:
        step: from 0.
        steps: of the run.
        highest: peak of the cycle.

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
    """The lowest mean loss between two checkpoints, and how long ago it was reached; saved with each checkpoint."""

    best_loss: float = math.inf
    """Lowest mean loss so far."""
    num_without_gain: int = 0
    """Number of checkpoints since ``best_loss``."""

    def after(self, losses: Sequence[float]) -> Plateau:
        """Return the value after one more checkpoint.

        Args:
            losses: of the steps since the last checkpoint, without skipped ones; empty counts as no gain.
        """
        mean = sum(losses) / len(losses) if losses else math.inf
        if mean < self.best_loss:
            return Plateau(best_loss=mean)
        return Plateau(best_loss=self.best_loss, num_without_gain=self.num_without_gain + 1)

    def is_reached(self, patience: int) -> bool:
        """Return whether the last ``patience`` checkpoints brought no lower loss; always False for 0."""
        return 0 < patience <= self.num_without_gain
