"""Tests that stay valid however often one looks.

What the differences of paired figures say.

What preferences say: a win rate, or two rates of success.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Tests, intervals and posterior of a mean difference (candidate minus champion)."""

    sample_size: int
    effect: float
    """Mean difference."""
    sd: float
    """Standard deviation of the differences."""
    p_value: float
    """Of the paired t test, or of the test that holds at every look."""
    p_value_wilcoxon: float
    """Of Wilcoxon's signed ranks; a check that does not lean on normal means."""
    interval: Interval
    """For the mean difference: t, or the sequence that holds at every look."""
    bootstrap_interval: Interval
    """Bias-corrected and accelerated."""
    credible_interval: Interval
    """Of the posterior of the mean difference."""
    probability_better: float
    """Posterior probability that the candidate is better."""
    expected_loss: float
    """What choosing the candidate costs on average in units of the metric where it is worse: small is safe."""


def assess_pairs(
    differences: NDArray[np.float64],
    *,
    higher_is_better: bool = False,
    alpha: float = 0.05,
    sequential_at: int | None = None,
    resamples: int = 9999,
    seed: int = 0,
) -> PairedResult:
    """Test a mean difference of zero, two-sided.

    Args:
        differences: (n,) candidate minus champion, n at least 2, finite.
        higher_is_better: of the metric.
        alpha: of the intervals.
        sequential_at: take tests that hold at every look, sharpest after so many pairs.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Source: the posterior is Student's t under Jeffreys' prior, Gelman et al., Bayesian Data Analysis, 3rd ed., 3.2.
    """
    from scipy import stats

    num, effect, sd = len(differences), float(np.mean(differences)), float(np.std(differences, ddof=1))
    sign = 1.0 if higher_is_better else -1.0
    if sd <= 1e-12 * max(1e-300, float(np.max(np.abs(differences)))):
        return _without_spread(num, effect, sign * effect)
    error = sd / np.sqrt(num)
    posterior = stats.t(num - 1, loc=sign * effect, scale=error)
    p_value, interval = float(stats.ttest_1samp(differences, 0.0).pvalue), _t_interval(effect, error, num, alpha)
    if sequential_at is not None:
        scale = mixture_scale(sequential_at, alpha=alpha)
        p_value = float(anytime_p_values(num, effect, sd, scale=scale))
        half = anytime_half_width(num, sd, alpha=alpha, scale=scale)
        interval = (effect - half, effect + half)
    return PairedResult(
        sample_size=num,
        effect=effect,
        sd=sd,
        p_value=p_value,
        p_value_wilcoxon=float(stats.wilcoxon(differences).pvalue),
        interval=interval,
        bootstrap_interval=_bootstrap(differences, alpha, resamples, seed),
        credible_interval=_t_interval(effect, error, num, alpha),
        probability_better=float(posterior.sf(0.0)),
        expected_loss=float(posterior.expect(lambda gain: -gain, ub=0.0)),
    )


def _t_interval(effect: float, error: float, num: int, alpha: float) -> Interval:
    from scipy import stats

    low, high = stats.t.interval(1 - alpha, num - 1, loc=effect, scale=error)
    return float(low), float(high)


def _bootstrap(differences: NDArray[np.float64], alpha: float, resamples: int, seed: int) -> Interval:
    from scipy import stats

    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=1 - alpha,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
        vectorized=True,
    ).confidence_interval
    return float(found.low), float(found.high)


def _without_spread(num: int, effect: float, gain: float) -> PairedResult:
    """Return the result where all pairs differ by the same amount, which no test statistic can express."""
    is_equal = gain == 0
    return PairedResult(
        sample_size=num,
        effect=effect,
        sd=0.0,
        p_value=1.0 if is_equal else 0.0,
        p_value_wilcoxon=1.0 if is_equal else 2.0 ** (1 - num),
        interval=(effect, effect),
        bootstrap_interval=(effect, effect),
        credible_interval=(effect, effect),
        probability_better=0.5 if is_equal else float(gain > 0),
        expected_loss=max(0.0, -gain),
    )


@dataclass(frozen=True, kw_only=True)
class PreferenceResult:
    """How often the candidate was preferred; the unit is the image, however many people looked at it."""

    sample_size: int
    """Images on which the votes lean to one side."""
    num_ties: int
    """Images on which they do not; they do not enter."""
    num_votes: int
    win_rate: float
    """The candidate's share of the images."""
    p_value: float
    """Two-sided binomial test against one half."""
    interval: Interval
    """Clopper and Pearson's exact one."""
    credible_interval: Interval
    """Of the posterior, Beta(1 + wins, 1 + losses)."""
    probability_better: float
    """Posterior probability of a win rate above one half."""
    expected_loss: float
    """Win rate below one half that choosing the candidate costs on average."""
    num_needed: int
    """Images for the power asked for."""


def assess_wins(
    wins: int, losses: int, *, num_ties: int = 0, num_votes: int | None = None, alpha: float = 0.05, num_needed: int = 0
) -> PreferenceResult:
    """Test a win rate against one half.

    Args:
        wins: images on which the candidate was preferred.
        losses: images on which the champion was.
        num_ties: images on which neither was.
        num_votes: behind them; by default one for each image.
        alpha: of the intervals.
        num_needed: is passed on.

    Source: the posterior under a uniform prior, as Laplace had it; Gelman et al., Bayesian Data Analysis, 3rd ed., 2.4.
    """
    from scipy import stats

    num = wins + losses
    posterior = stats.beta(1 + wins, 1 + losses)
    low, high = posterior.interval(1 - alpha)
    exact: Interval = (0.0, 1.0)
    p_value = 1.0
    if num:
        test = stats.binomtest(wins, num)
        found = test.proportion_ci(1 - alpha, method="exact")
        p_value, exact = float(test.pvalue), (float(found.low), float(found.high))
    return PreferenceResult(
        sample_size=num,
        num_ties=num_ties,
        num_votes=num + num_ties if num_votes is None else num_votes,
        win_rate=wins / num if num else 0.5,
        p_value=p_value,
        interval=exact,
        credible_interval=(float(low), float(high)),
        probability_better=float(posterior.sf(0.5)),
        expected_loss=float(posterior.expect(lambda rate: 0.5 - rate, ub=0.5)),
        num_needed=num_needed,
    )


@dataclass(frozen=True, kw_only=True)
class RatesResult:
    """Two rates of success of a live split, candidate minus champion."""

    champion_rate: float
    candidate_rate: float
    effect: float
    z: float
    p_value: float
    """Two-sided z test with the pooled rate."""
    interval: Interval
    """Newcombe's, from Wilson's intervals of both rates."""
    probability_better: float
    expected_loss: float
    """Rate that choosing the candidate costs on average."""


def assess_rates(
    successes: tuple[int, int], totals: tuple[int, int], *, alpha: float = 0.05, seed: int = 0
) -> RatesResult:
    """Test the equality of two rates.

    Args:
        successes: of champion and candidate.
        totals: units of champion and candidate.
        alpha: of the interval.
        seed: of the draws from the two posteriors, Beta(1 + successes, 1 + failures).

    Source: Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    import numpy as np
    from scipy import stats
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    champion_rate, candidate_rate = (done / of for done, of in zip(successes, totals, strict=True))
    if sum(successes) in (0, sum(totals)):
        z, p_value = 0.0, 1.0  # no success or no failure anywhere: the rates are equal
    else:
        z, p_value = proportions_ztest([successes[1], successes[0]], [totals[1], totals[0]])
    low, high = confint_proportions_2indep(
        successes[1], totals[1], successes[0], totals[0], method="newcomb", compare="diff", alpha=alpha
    )
    rng = np.random.default_rng(seed)
    draws = [
        stats.beta(1 + done, 1 + of - done).rvs(200_000, random_state=rng)
        for done, of in zip(successes, totals, strict=True)
    ]
    gain = draws[1] - draws[0]
    return RatesResult(
        champion_rate=champion_rate,
        candidate_rate=candidate_rate,
        effect=candidate_rate - champion_rate,
        z=float(z),
        p_value=float(p_value),
        interval=(float(low), float(high)),
        probability_better=float((gain > 0).mean()),
        expected_loss=float(np.maximum(0.0, -gain).mean()),
    )
