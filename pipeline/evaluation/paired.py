"""What the differences of paired figures say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.sequential import anytime_half_width, anytime_p_values, mixture_scale

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
