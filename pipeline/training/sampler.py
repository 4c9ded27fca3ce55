"""Which image and which crop a sample is: a function of (seed, global sample index) alone.

It does not depend on the number of workers, and a resumed run sees exactly the samples that an undisturbed one would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ORDER, _CROP = 1, 2
"""Streams of the seed: one orders the epochs, one places the crops."""


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

    def share(self, step: int, batch_size: int, rank: int, num_workers: int) -> list[int]:
        """Return the global indices of one worker's part of a step's batch.

        Args:
            step: from 0.
            batch_size: samples of a step over all workers.
            rank: of the worker.
            num_workers: in all; need not divide the batch.
        """
        return list(range(step * batch_size + rank, (step + 1) * batch_size, num_workers))
