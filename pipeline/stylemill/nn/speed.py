"""How fast a network paints on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stylemill.nn.fast_net import FastNet

TRIAL_SIDE_PX = 512
NUM_TRIALS = 3
"""The best of this many paintings of a picture of this size counts."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a network costs on this machine."""

    seconds_per_megapixel: float
    precision: str
    """Arithmetic that was used."""
    num_threads: int
    painted_HWC: NDArray[np.uint8]
    """(TRIAL_SIDE_PX, TRIAL_SIDE_PX, 3), the trial picture in the style."""


def measure_speed(net: FastNet, image_HWC: NDArray[np.uint8] | None = None) -> Speed:
    """Paint a picture a few times with the threads that torch has now; return the best time.

    Args:
        net: prepared for this machine.
        image_HWC: (H, W, 3) uint8, or None for grain.
    """
    if image_HWC is None:
        image_HWC = np.random.default_rng(0).integers(0, 256, (TRIAL_SIDE_PX, TRIAL_SIDE_PX, 3), dtype=np.uint8)
    painted_HWC = net.stylize(image_HWC)  # warm-up: what happens once is not the cost of an image
    seconds = []
    for _ in range(NUM_TRIALS):
        start_s = time.perf_counter()
        net.stylize(image_HWC)
        seconds.append(time.perf_counter() - start_s)
    megapixels = image_HWC.shape[0] * image_HWC.shape[1] / 1e6
    return Speed(
        seconds_per_megapixel=min(seconds) / megapixels,
        precision=net.precision,
        num_threads=torch.get_num_threads(),
        painted_HWC=painted_HWC,
    )
