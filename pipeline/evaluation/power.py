"""How many images or votes it takes to find an effect that matters."""

from __future__ import annotations

import math

FEWEST_PAIRS = 8
"""Below, neither the t test nor the bootstrap deserves trust, whatever the power says."""


def pairs_needed(sd_difference: float, minimal_difference: float, *, alpha: float, power: float) -> int:
    """Return how many pairs a two-sided paired t test needs.

    Args:
        sd_difference: standard deviation of the differences within pairs.
        minimal_difference: smallest mean difference worth finding, above 0.
        alpha: level of the test.
        power: chance of finding that difference.

    Source: noncentral t distribution, as statsmodels' TTestPower has it.
    """
    from scipy.optimize import brentq

    if sd_difference <= 0:
        return FEWEST_PAIRS
    effect_size = minimal_difference / sd_difference

    def lacking(num: float) -> float:
        return _power(effect_size, num, alpha) - power

    if lacking(FEWEST_PAIRS) >= 0:
        return FEWEST_PAIRS
    enough = float(FEWEST_PAIRS)
    while lacking(enough) < 0:
        enough *= 2
    return math.ceil(brentq(lacking, enough / 2, enough))


def power_of(num_pairs: int, sd_difference: float, difference: float, *, alpha: float) -> float:
    """Return the chance that a two-sided paired t test finds a mean difference; arguments as above."""
    return 1.0 if sd_difference <= 0 else _power(abs(difference) / sd_difference, num_pairs, alpha)


def _power(effect_size: float, num_pairs: float, alpha: float) -> float:
    from scipy import stats
    from statsmodels.stats.power import TTestPower

    found = float(TTestPower().power(effect_size, num_pairs, alpha))
    if math.isnan(found):  # the noncentral t distribution overflows far out, where the power is as good as 0 or 1
        return float(effect_size * math.sqrt(num_pairs) > stats.t.isf(alpha / 2, num_pairs - 1))
    return found


def units_needed(minimal_win_rate: float, *, alpha: float, power: float) -> int:
    """Return the fewest images with which the exact two-sided test of a win rate against one half has the power.

    The normal approximation promises too much: at level 0.05 and a rate of 0.6 its number has a power of 0.76, not 0.8.

    Args:
        minimal_win_rate: smallest rate worth finding, above 0.5.
        alpha: level of the test.
        power: chance of finding that rate.
    """
    import numpy as np
    from scipy import stats

    start, width = 1, 4096
    while True:
        num = np.arange(start, start + width)
        # The largest number of wins, and by symmetry of losses, that the test rejects.
        edge = stats.binom.ppf(alpha / 2, num, 0.5)
        edge = np.where(stats.binom.cdf(edge, num, 0.5) <= alpha / 2, edge, edge - 1)
        reached = stats.binom.cdf(edge, num, minimal_win_rate) + stats.binom.sf(num - edge - 1, num, minimal_win_rate)
        enough = np.flatnonzero(reached >= power)
        if len(enough):
            return int(num[enough[0]])
        start += width


def units_needed_live(rate: float, minimal_change: float, *, alpha: float, power: float, ratio: float = 1.0) -> int:
    """Return how many units the champion's side of a live split needs; the candidate's has ``ratio`` times as many.

    Args:
        rate: the champion's share of successes.
        minimal_change: smallest change of it worth finding, absolute.
        alpha: level.
        power: chance of finding that change.
        ratio: candidate's units for each of the champion's.
    """
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    changed = min(max(rate + minimal_change, 1e-9), 1 - 1e-9)
    effect_size = abs(proportion_effectsize(changed, min(max(rate, 1e-9), 1 - 1e-9)))
    return math.ceil(NormalIndPower().solve_power(effect_size, alpha=alpha, power=power, ratio=ratio))
