"""How alike a style paints a series: the same thing in two crops, and the spread of colours and strokes over a set.

``crop_difference`` is a figure of one image. ``strokes`` and the mean colour describe one picture; their spread over a
set of paintings, relative to that over the photographs, is computed from the table (``report/evaluation_pages.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stylemill.evaluation.image_metrics import Image

BORDER_PX = 24
"""Rows and columns at the edges of crops that are not compared, where padding shows; less in small images."""
_SIGMAS_PX = (0, 1, 2, 4, 8)
_LEAST_ENERGY = 1e-3
"""Variance of lightness, of CIELAB, that counts as no detail."""


def overlapping_crops(image_HWC: Image) -> tuple[Image, Image, int]:
    """Return the left and the right three quarters of an image, and how many columns the right one is shifted.

    The shift is a multiple of 4, so that the network's grid is the same in both.
    """
    shift_px = image_HWC.shape[1] // 16 * 4
    width_px = image_HWC.shape[1] - shift_px
    return image_HWC[:, :width_px], image_HWC[:, shift_px:], shift_px


def crop_difference(stylize: Callable[[Image], Image], source_HWC: Image) -> float:
    """Return how differently a network paints the same part of two crops: mean difference, of 255 levels.

    Args:
        stylize: paints (H, W, 3) uint8.
        source_HWC: (H, W, 3) uint8, both sides at least 64 px.
    """
    left_HWC, right_HWC, shift_px = overlapping_crops(source_HWC)
    shared_px = left_HWC.shape[1] - shift_px
    in_left_HWC = stylize(np.ascontiguousarray(left_HWC))[:, shift_px:]
    in_right_HWC = stylize(np.ascontiguousarray(right_HWC))[:, :shared_px]
    border_px = min(BORDER_PX, min(source_HWC.shape[0], shared_px) // 4)
    inner = (slice(border_px, -border_px), slice(border_px, -border_px))
    return float(np.abs(in_left_HWC[inner].astype(np.float64) - in_right_HWC[inner]).mean())


def strokes(image_HWC: Image) -> NDArray[np.float64]:
    """Return the logarithm of the energy of details of 1, 2, 4 and 8 px, (4,).

    Args:
        image_HWC: (H, W, 3) uint8 sRGB.
    """
    from skimage.color import rgb2lab
    from skimage.filters import gaussian

    light_HW = rgb2lab(image_HWC)[..., 0]
    scales = [gaussian(light_HW, sigma) if sigma else light_HW for sigma in _SIGMAS_PX]
    details = [finer - coarser for finer, coarser in itertools.pairwise(scales)]
    return np.array([np.log(detail.var() + _LEAST_ENERGY) for detail in details])
