"""Statistical tests of the comparison: paired differences, win rates, and two success rates.

Each ``assess_*`` function returns p value, intervals and a posterior. Sequential tests ("anytime") stay valid if the
results are checked repeatedly while data arrive. The field names of the result classes are keys of ``comparison.json``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

BURN_IN = 20
"""With fewer pairs a sequential test is never significant, because the standard deviation is not known well enough."""


# Sequential tests.


def mixture_scale(best_at: int, *, alpha: float) -> float:
    """Return the scale of the mixture for which the interval is narrowest after ``best_at`` pairs.

    Source: Waudby-Smith et al. 2021, arXiv:2103.06476, choice of rho.
    """
    log_term = -2 * math.log(alpha)
    return math.sqrt((log_term + math.log(log_term) + 1) / best_at)


def anytime_p_values(num: ArrayLike, mean: ArrayLike, sd: ArrayLike, *, scale: float) -> NDArray[np.float64]:
    """Return p values of a zero mean; the smallest one over all checks is still a valid p value.

    Args:
        num: number of pairs so far; all arrays have one shape.
        mean: mean of their differences.
        sd: standard deviation of their differences.
        scale: result of ``mixture_scale``.

    Source: the inverse of the normal mixture martingale, Robbins 1970, doi:10.1214/aoms/1177696786, with the estimated
    standard deviation in place of the known one.
    """
    num, mean, sd = (np.asarray(values, dtype=np.float64) for values in (num, mean, sd))
    growth = num * scale**2 + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.where(sd > 0, (num * mean / sd) ** 2, np.where(mean == 0, 0.0, np.inf))
    log_martingale = scale**2 * squared / (2 * growth) - 0.5 * np.log(growth)
    p_values = np.exp(np.minimum(0.0, -log_martingale))
    return np.where(num < BURN_IN, 1.0, p_values)


def anytime_half_width(num: int, sd: float, *, alpha: float, scale: float) -> float:
    """Return half the width of the interval around the mean that holds for all checks together.

    Source: Waudby-Smith et al. 2021, arXiv:2103.06476, the asymptotic confidence sequence.
    """
    if num < BURN_IN:
        return math.inf
    growth = num * scale**2 + 1
    return sd * math.sqrt(2 * growth / (num * scale) ** 2 * math.log(math.sqrt(growth) / alpha))


# Paired differences.


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Tests, intervals and posterior of a mean difference (candidate minus champion)."""

    sample_size: int
    effect: float
    """Mean difference."""
    sd: float
    """Standard deviation of the differences."""
    p_value: float
    """p value of the paired t test, or of the sequential test."""
    p_value_wilcoxon: float
    """p value of Wilcoxon's signed-rank test, which does not assume normal means."""
    interval: Interval
    """Confidence interval of the mean difference: of the t test, or of the sequential test."""
    bootstrap_interval: Interval
    """Bias-corrected and accelerated bootstrap interval."""
    credible_interval: Interval
    """Interval of the posterior of the mean difference."""
    probability_better: float
    """Posterior probability that the candidate is better."""
    expected_loss: float
    """Expected cost of choosing the candidate, in units of the metric: 0 where it is better, else the difference."""


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
        higher_is_better: True if higher values of the metric are better.
        alpha: level of the intervals.
        sequential_at: use the sequential test, with the most power after this number of pairs.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

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
    """Return the result if all pairs differ by the same amount, for which the test statistics are undefined."""
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


# Win rates.


@dataclass(frozen=True, kw_only=True)
class PreferenceResult:
    """Test of the share of images on which the candidate was preferred; the unit is the image, not the vote."""

    sample_size: int
    """Images with a majority of votes for one side."""
    num_ties: int
    """Images without a majority; they do not count."""
    num_votes: int
    win_rate: float
    """The candidate's share of the images."""
    p_value: float
    """p value of the two-sided binomial test against one half."""
    interval: Interval
    """Exact interval of Clopper and Pearson."""
    credible_interval: Interval
    """Interval of the posterior Beta(1 + wins, 1 + losses)."""
    probability_better: float
    """Posterior probability of a win rate above one half."""
    expected_loss: float
    """Expected cost of choosing the candidate: 0 for a win rate above one half, else the distance to one half."""
    num_needed: int
    """Images that the requested power needs."""


def assess_wins(
    wins: int, losses: int, *, num_ties: int = 0, num_votes: int | None = None, alpha: float = 0.05, num_needed: int = 0
) -> PreferenceResult:
    """Test a win rate against one half.

    Args:
        wins: images on which the candidate was preferred.
        losses: images on which the champion was preferred.
        num_ties: images on which neither was preferred.
        num_votes: number of votes on these images; by default one for each image.
        alpha: level of the intervals.
        num_needed: value for the result.

    Source: the posterior under a uniform prior (Laplace); Gelman et al., Bayesian Data Analysis, 3rd ed., 2.4.
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


# Two success rates.


@dataclass(frozen=True, kw_only=True)
class RatesResult:
    """Test of two success rates of a live split; the effect is candidate minus champion."""

    champion_rate: float
    candidate_rate: float
    effect: float
    z: float
    p_value: float
    """p value of the two-sided z test with the pooled rate."""
    interval: Interval
    """Newcombe's interval of the effect, from Wilson's intervals of both rates."""
    probability_better: float
    expected_loss: float
    """Expected cost of choosing the candidate: 0 if its rate is higher, else the difference of the rates."""


def assess_rates(
    successes: tuple[int, int], totals: tuple[int, int], *, alpha: float = 0.05, seed: int = 0
) -> RatesResult:
    """Test the equality of two rates.

    Args:
        successes: successes of champion and candidate.
        totals: units of champion and candidate.
        alpha: level of the interval.
        seed: seed of the draws from the two posteriors Beta(1 + successes, 1 + failures).

    Source: Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    from scipy import stats
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    champion_rate, candidate_rate = (done / of for done, of in zip(successes, totals, strict=True))
    if sum(successes) in (0, sum(totals)):
        z, p_value = 0.0, 1.0  # both rates are 0 or both are 1
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
