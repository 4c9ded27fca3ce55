"""Ranks candidates by the votes (Bradley-Terry strengths) and measures the agreement of voters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylemill.experiments.statistics import Interval

_DRAWS = 20_000
"""Draws for ``probability_best``."""
_ANSWERS = ("a", "b", "tie")


@dataclass(frozen=True, kw_only=True)
class RankedModel:
    """One candidate in the ranking."""

    model: str
    strength: float
    """Log odds against the average candidate: a beats b with odds exp(strength_a - strength_b)."""
    interval: Interval
    probability_best: float
    """Share of draws from the normal approximation of the likelihood in which this candidate is the strongest."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All candidates, strongest first."""

    models: tuple[RankedModel, ...]
    was_regularized: bool
    """A candidate or group never lost or never won against the rest, so half a win each way was added to each pair."""
    num_votes: int
    num_voters: int
    agreement: float | None
    """Share of equal answers over all pairs of voters and questions that both answered."""
    kappa: float | None
    """Mean of Cohen's kappa over pairs of voters: agreement beyond chance, at most 1."""

    @property
    def agreement_sentence(self) -> str:
        """The agreement as a sentence without a full stop."""
        voters = f"{self.num_voters} voter" + "s" * (self.num_voters != 1)
        if self.agreement is None:
            return f"{voters}, {self.num_votes} votes; no question was answered by two voters"
        kappa = f", kappa {self.kappa:.2f}" if self.kappa is not None else ""
        return f"{voters}, {self.num_votes} votes; two voters agree on {self.agreement:.0%} of the questions{kappa}"


def rank(votes: Sequence[Mapping[str, Any]], *, alpha: float = 0.05, seed: int = 0) -> Ranking:
    """Fit the strengths of all candidates; a tie counts as half a win for each.

    Args:
        votes: rows of VOTE_SCHEMA, at least one.
        alpha: level of the intervals.
        seed: seed of the draws for ``probability_best``.
    """
    from scipy import stats

    models, wins = count_wins(votes)
    strengths, covariance, was_regularized = bradley_terry(wins)

    half = stats.norm.ppf(1 - alpha / 2) * np.sqrt(np.diag(covariance))
    draws = np.random.default_rng(seed).multivariate_normal(strengths, covariance, _DRAWS, method="svd")
    best = np.bincount(draws.argmax(axis=1), minlength=len(models)) / _DRAWS
    agreement, kappa = voter_agreement(votes)
    return Ranking(
        models=tuple(
            RankedModel(
                model=models[at],
                strength=float(strengths[at]),
                interval=(float(strengths[at] - half[at]), float(strengths[at] + half[at])),
                probability_best=float(best[at]),
            )
            for at in np.argsort(-strengths, kind="stable")
        ),
        was_regularized=was_regularized,
        num_votes=len(votes),
        num_voters=len({vote["voter"] for vote in votes}),
        agreement=agreement,
        kappa=kappa,
    )


def count_wins(votes: Iterable[Mapping[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the models and the (n, n) wins of the row's model over the column's; a tie is half a win for both."""
    votes = list(votes)
    models = sorted({vote[side] for vote in votes for side in ("model_a", "model_b")})
    index = {model: number for number, model in enumerate(models)}
    wins = np.zeros((len(models), len(models)))
    for vote in votes:
        a, b = index[vote["model_a"]], index[vote["model_b"]]
        share = 0.5 if vote["preferred"] is None else float(vote["preferred"] == vote["model_a"])
        wins[a, b] += share
        wins[b, a] += 1 - share
    return models, wins


def bradley_terry(wins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Fit a Bradley-Terry model as a logistic regression.

    Args:
        wins: (n, n) wins of the row's candidate over the column's.

    Returns:
        (n,) strengths with mean zero, their (n, n) covariance, and whether half a win each way was added because the
        likelihood has no finite maximum.

    Source: Bradley and Terry 1952, doi:10.2307/2334029; for the existence of a maximum Ford 1957,
    doi:10.1080/00029890.1957.11989117.
    """
    import statsmodels.api as sm
    from scipy.sparse.csgraph import connected_components

    num = len(wins)
    groups, _ = connected_components(wins > 0, directed=True, connection="strong")
    was_regularized = groups > 1
    if was_regularized:
        met = (wins + wins.T) > 0
        apart, _ = connected_components(met, directed=False)
        met |= apart > 1  # otherwise groups that were never compared have no common scale
        wins = wins + 0.5 * (met & ~np.eye(num, dtype=bool))
    pairs = [(a, b) for a, b in combinations(range(num), 2) if wins[a, b] + wins[b, a] > 0]
    design, answers = np.zeros((len(pairs), num)), np.zeros((len(pairs), 2))
    for row, (a, b) in enumerate(pairs):
        design[row, a], design[row, b] = 1.0, -1.0
        answers[row] = wins[a, b], wins[b, a]
    with np.errstate(invalid="ignore", divide="ignore"):  # statsmodels computes an unused scale of the residuals
        fitted = sm.GLM(answers, design[:, 1:], family=sm.families.Binomial()).fit()
    strengths, covariance = np.zeros(num), np.zeros((num, num))
    strengths[1:], covariance[1:, 1:] = fitted.params, fitted.cov_params()
    center = np.eye(num) - 1 / num
    return center @ strengths, center @ covariance @ center.T, was_regularized


def voter_agreement(votes: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Return the share of questions on which two voters agree, and the mean of Cohen's kappa over pairs of voters.

    Source: Cohen 1960, doi:10.1177/001316446002000104; the mean over pairs after Light 1971, doi:10.1037/h0031643.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    answers: dict[str, dict[tuple[str, str, str], str]] = defaultdict(dict)
    for vote in votes:
        question = (vote["key"], vote["model_a"], vote["model_b"])
        chosen = vote["preferred"]
        answers[vote["voter"]][question] = "tie" if chosen is None else "a" if chosen == vote["model_a"] else "b"
    equal = total = 0
    kappas = []
    for first, second in combinations(sorted(answers), 2):
        common = answers[first].keys() & answers[second].keys()
        if not common:
            continue
        table = np.zeros((len(_ANSWERS), len(_ANSWERS)))
        for question in common:
            table[_ANSWERS.index(answers[first][question]), _ANSWERS.index(answers[second][question])] += 1
        equal, total = equal + int(np.trace(table)), total + len(common)
        shares = table.sum(axis=1) @ table.sum(axis=0) / len(common) ** 2
        if shares < 1:  # kappa is undefined if both voters always give one and the same answer
            kappas.append(float(cohens_kappa(table, return_results=False)))
    return (equal / total if total else None), (float(np.mean(kappas)) if kappas else None)
