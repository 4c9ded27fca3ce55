"""Decides which of two styles is better, from measurements and votes.

``compare`` tests all metrics of the rule on the images that both models painted, corrects the p values (Holm) and
returns a ``Comparison``: the decision, its reason and all figures. The field names of the dataclasses are keys of
``comparison.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from stylemill.evaluation.config import HIGHER_IS_BETTER
from stylemill.experiments.ballot import check_votes, count_images
from stylemill.experiments.config import Rule
from stylemill.experiments.design import MIN_PAIRS, pair_up, pairs_needed, power_of, units_needed
from stylemill.experiments.statistics import (
    BURN_IN,
    Interval,
    PairedResult,
    PreferenceResult,
    anytime_p_values,
    assess_pairs,
    assess_wins,
    mixture_scale,
)

Decision = Literal["candidate", "champion", "undecided", "too_few"]


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """Test of one metric of both styles."""

    metric: str
    higher_is_better: bool
    mean_champion: float
    mean_candidate: float
    p_adjusted: float
    """p value after Holm's correction over all metrics and the preference."""
    num_needed: int
    """Images needed for the requested power, computed from the spread of these pairs."""
    power: float
    """Probability of detecting the minimal effect with the images that were measured."""
    result: PairedResult


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The decision on champion and candidate; figures without a metric are those of the first metric."""

    champion: str
    candidate: str
    decision: Decision
    reason: str
    metric: str
    sample_size: int
    num_needed: int
    effect: float
    """Candidate minus champion, in units of the metric."""
    relative_effect: float
    """Effect divided by the champion's mean."""
    p_value: float
    """p value, corrected for the number of tests."""
    interval: Interval
    probability_better: float
    expected_loss: float
    metrics: tuple[MetricResult, ...]
    preference: PreferenceResult | None
    preference_p_adjusted: float | None
    rule: dict[str, Any]
    """Rule of the decision."""

    def to_json(self) -> str:
        """Return all fields as JSON; values that are not finite become null."""
        return json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)


def compare(
    table: pa.Table,
    *,
    champion: str,
    candidate: str,
    rule: Rule,
    votes: Sequence[Mapping[str, Any]] = (),
) -> Comparison:
    """Compare two styles on the images on which both were measured.

    The candidate wins if the first metric is significantly better and no metric and not the votes are significantly
    worse. The champion wins if any of them is significantly worse. With fewer images than the requested power needs,
    nothing is decided (a sequential rule may decide early).

    Args:
        table: rows of EVALUATION_SCHEMA, of one judge.
        champion: label of the model in use.
        candidate: label of the model that may replace it.
        rule: rule of the decision, chosen before the figures were seen.
        votes: rows of VOTE_SCHEMA.

    Raises:
        ConfigError: the models have no image in common, or a vote is unknown or repeated.
    """
    from statsmodels.stats.multitest import multipletests

    check_votes(votes, table.select(["key", "model", "status"]).to_pylist())
    pairs = {metric: pair_up(table, metric, champion, candidate) for metric in rule.metrics}
    num, num_tests = len(pairs[rule.metrics[0]]), len(rule.metrics) + bool(votes)
    if num < 2:
        return _too_few(champion, candidate, rule, pairs[rule.metrics[0]])
    level = rule.alpha / num_tests  # level of a test in the worst case of Holm's correction; the power is for it
    preference = _preference(votes, champion, candidate, rule, level) if votes else None
    results = [_assess(pairs[metric], metric, rule, level) for metric in rule.metrics]
    p_values = [result.p_value for _, result, _ in results]
    if preference is not None:
        p_values.append(preference.p_value)
    adjusted = [float(value) for value in multipletests(p_values, rule.alpha, method="holm")[1]]
    metrics = tuple(
        MetricResult(
            metric=metric,
            higher_is_better=metric in HIGHER_IS_BETTER,
            mean_champion=means[0],
            mean_candidate=means[1],
            p_adjusted=p_adjusted,
            num_needed=needed,
            power=power_of(num, result.sd, rule.minimal_effect * abs(means[0]), alpha=level),
            result=result,
        )
        for metric, (means, result, needed), p_adjusted in zip(rule.metrics, results, adjusted, strict=False)
    )
    preference_p = adjusted[-1] if preference is not None else None
    decision, reason = _decide(metrics, preference, preference_p, rule)
    return _assemble(champion, candidate, rule, metrics, decision, reason, preference, preference_p)


def _assess(pairs: np.ndarray, metric: str, rule: Rule, level: float) -> tuple[tuple[float, float], PairedResult, int]:
    """Return the means, the test results and the number of pairs needed for one metric."""
    means = (float(pairs[:, 0].mean()), float(pairs[:, 1].mean()))
    differences = pairs[:, 1] - pairs[:, 0]
    minimal = max(rule.minimal_effect * abs(means[0]), 1e-300)
    needed = pairs_needed(float(differences.std(ddof=1)), minimal, alpha=level, power=rule.power)
    result = assess_pairs(
        differences,
        higher_is_better=metric in HIGHER_IS_BETTER,
        alpha=rule.alpha,
        # A constant, because it must not depend on the figures.
        sequential_at=5 * BURN_IN if rule.sequential else None,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    return means, result, needed


def _preference(
    votes: Sequence[Mapping[str, Any]], champion: str, candidate: str, rule: Rule, level: float
) -> PreferenceResult:
    wins, losses, ties, num_votes = count_images(votes, champion, candidate)
    needed = units_needed(rule.minimal_win_rate, alpha=level, power=rule.power)
    found = assess_wins(wins, losses, num_ties=ties, num_votes=num_votes, alpha=rule.alpha, num_needed=needed)
    if not rule.sequential:
        return found
    num, scale = wins + losses, mixture_scale(5 * BURN_IN, alpha=rule.alpha)
    # The standard deviation of a fair coin is one half.
    p_value = float(anytime_p_values(num, found.win_rate - 0.5, 0.5, scale=scale)) if num else 1.0
    return PreferenceResult(**{**asdict(found), "p_value": p_value})


def _decide(
    metrics: Sequence[MetricResult], preference: PreferenceResult | None, preference_p: float | None, rule: Rule
) -> tuple[Decision, str]:
    first = metrics[0]
    if first.result.sample_size < first.num_needed and not rule.sequential:
        return "too_few", (
            f"{first.result.sample_size} images are too few to detect a change of {rule.minimal_effect:.1%} with power "
            f"{rule.power:g}: {first.num_needed} are needed; nothing is decided"
        )
    worse = [
        metric.metric for metric in metrics if metric.p_adjusted < rule.alpha and metric.result.probability_better < 0.5
    ]
    if preference is not None and preference_p is not None and preference_p < rule.alpha and preference.win_rate < 0.5:
        worse.append("preference")
    if worse:
        return "champion", f"the candidate is significantly worse in {', '.join(worse)}"
    if first.p_adjusted < rule.alpha:
        better = f"{first.metric} is significantly better (p {first.p_adjusted:.2g})"
        return "candidate", f"{better}, and nothing is significantly worse"
    if rule.sequential and first.result.sample_size < first.num_needed:
        after = f"after {first.result.sample_size} images"
        return "undecided", f"no significant difference {after} so far; more images may be added"
    return "undecided", f"no significant difference in {first.metric} (p {first.p_adjusted:.2g})"


def _assemble(
    champion: str,
    candidate: str,
    rule: Rule,
    metrics: tuple[MetricResult, ...],
    decision: Decision,
    reason: str,
    preference: PreferenceResult | None,
    preference_p: float | None,
) -> Comparison:
    first = metrics[0]
    return Comparison(
        champion=champion,
        candidate=candidate,
        decision=decision,
        reason=reason,
        metric=first.metric,
        sample_size=first.result.sample_size,
        num_needed=first.num_needed,
        effect=first.result.effect,
        relative_effect=first.result.effect / abs(first.mean_champion) if first.mean_champion else math.nan,
        p_value=first.p_adjusted,
        interval=first.result.interval,
        probability_better=first.result.probability_better,
        expected_loss=first.result.expected_loss,
        metrics=metrics,
        preference=preference,
        preference_p_adjusted=preference_p,
        rule={**asdict(rule), "metric": list(rule.metrics)},
    )


def _too_few(champion: str, candidate: str, rule: Rule, pairs: np.ndarray) -> Comparison:
    """Return the comparison on a single image, which has no standard deviation to test with."""
    reason = f"1 image is too few to test: at least {MIN_PAIRS} are needed; nothing is decided"
    effect = float(pairs[0, 1] - pairs[0, 0])
    return Comparison(
        champion=champion,
        candidate=candidate,
        decision="too_few",
        reason=reason,
        metric=rule.metrics[0],
        sample_size=len(pairs),
        num_needed=MIN_PAIRS,
        effect=effect,
        relative_effect=effect / abs(float(pairs[0, 0])) if pairs[0, 0] else math.nan,
        p_value=1.0,
        interval=(-math.inf, math.inf),
        probability_better=0.5,
        expected_loss=math.nan,
        metrics=(),
        preference=None,
        preference_p_adjusted=None,
        rule={**asdict(rule), "metric": list(rule.metrics)},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
