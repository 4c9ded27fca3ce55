"""Tests that stay valid however often one looks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

BURN_IN = 20
"""Before so many pairs the spread is not known well enough: nothing is significant."""


def mixture_scale(best_at: int, *, alpha: float) -> float:
    """Return the scale at which the interval is narrowest after ``best_at`` pairs.

    Source: Waudby-Smith et al. 2021, arXiv:2103.06476, on the choice of rho.
    """
    log_term = -2 * math.log(alpha)
    return math.sqrt((log_term + math.log(log_term) + 1) / best_at)


def anytime_p_values(num: ArrayLike, mean: ArrayLike, sd: ArrayLike, *, scale: float) -> NDArray[np.float64]:
    """Return p values of a zero mean, of which the smallest over all looks is still valid.

    Args:
        num: pairs seen so far; arrays of one shape.
        mean: of their differences.
        sd: of their differences.
        scale: of ``mixture_scale``.

    Source: the inverse of the normal mixture martingale, Robbins 1970, doi:10.1214/aoms/1177696786, with the estimated
    spread in place of the known one.
    """
    num, mean, sd = (np.asarray(values, dtype=np.float64) for values in (num, mean, sd))
    growth = num * scale**2 + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.where(sd > 0, (num * mean / sd) ** 2, np.where(mean == 0, 0.0, np.inf))
    log_martingale = scale**2 * squared / (2 * growth) - 0.5 * np.log(growth)
    p_values = np.exp(np.minimum(0.0, -log_martingale))
    return np.where(num < BURN_IN, 1.0, p_values)


def anytime_half_width(num: int, sd: float, *, alpha: float, scale: float) -> float:
    """Return half the width of the interval around the mean that holds at all looks at once.

    Source: Waudby-Smith et al. 2021, arXiv:2103.06476, the asymptotic confidence sequence.
    """
    if num < BURN_IN:
        return math.inf
    growth = num * scale**2 + 1
    return sd * math.sqrt(2 * growth / (num * scale) ** 2 * math.log(math.sqrt(growth) / alpha))
