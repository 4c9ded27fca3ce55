"""What preferences say: a win rate, or two rates of success."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.paired import Interval


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
