"""Live splits: assignment of units to styles, the check of the split, and the comparison of success rates.

Publishing code calls ``assign`` to choose a style for each unit; ``compare_live`` decides on the recorded successes.
The field names of ``LiveComparison`` are keys of ``comparison.json``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stylemill.errors import ConfigError
from stylemill.experiments.design import units_needed_live
from stylemill.experiments.statistics import RatesResult, assess_rates

Variant = Literal["champion", "candidate"]
MISMATCH_ALPHA = 0.001
"""With a lower p value the split does not match the plan, and nothing is decided."""


def assign(unit: str, *, experiment: str, candidate_share: float = 0.5) -> Variant:
    """Return the style that a unit sees: always the same for a unit, and independent between experiments.

    Args:
        unit: identity of an asset or a user, never of a request.
        experiment: name of the experiment; another name gives another assignment.
        candidate_share: share of units that see the candidate.
    """
    hashed = hashlib.sha256(f"{experiment}\0{unit}".encode()).digest()
    return "candidate" if int.from_bytes(hashed[:8], "big") < candidate_share * 2**64 else "champion"


def ratio_p_value(champion: int, candidate: int, *, candidate_share: float = 0.5) -> float:
    """Return the p value of a chi-squared test of the numbers of units against the planned split.

    Source: Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled experiments",
    doi:10.1145/3292500.3330722.
    """
    from scipy import stats

    total = champion + candidate
    expected = [total * (1 - candidate_share), total * candidate_share]
    return float(stats.chisquare([champion, candidate], expected).pvalue)


@dataclass(frozen=True, kw_only=True)
class LiveComparison:
    """The decision on a live split."""

    decision: Literal["candidate", "champion", "undecided", "too_few", "invalid"]
    reason: str
    sample_size: int
    effect: float
    """Candidate's success rate minus the champion's."""
    p_value: float
    interval: tuple[float, float]
    probability_better: float
    num_champion: int
    num_candidate: int
    num_needed: int
    """Units of both sides together that the requested power needs."""
    ratio_p_value: float
    rates: RatesResult


def compare_live(
    rows: Iterable[Mapping[str, Any]],
    *,
    alpha: float,
    power: float,
    minimal_effect: float,
    candidate_share: float = 0.5,
    experiment: str | None = None,
) -> LiveComparison:
    """Compare the success rates of a live split.

    Args:
        rows: one row for each unit: ``unit``, ``variant`` (champion or candidate), ``success`` (bool).
        alpha: level of the test.
        power: requested power.
        minimal_effect: smallest absolute change of the rate worth detecting.
        candidate_share: planned share of the candidate.
        experiment: name of the experiment; if given, each variant is checked against ``assign``.

    Raises:
        ConfigError: a unit occurs twice or in both variants, a variant is unknown or not assigned, or a side is empty.
    """
    rows = _checked(rows, experiment, candidate_share)
    totals, wins = Counter(row["variant"] for row in rows), Counter(row["variant"] for row in rows if row["success"])
    for side in ("champion", "candidate"):
        if not totals[side]:
            raise ConfigError("live", side, "has no units", "give the rows of both sides")
    rates = assess_rates((wins["champion"], wins["candidate"]), (totals["champion"], totals["candidate"]), alpha=alpha)
    ratio = candidate_share / (1 - candidate_share)
    one_side = units_needed_live(rates.champion_rate, minimal_effect, alpha=alpha, power=power, ratio=ratio)
    needed = round(one_side * (1 + ratio))
    split_p = ratio_p_value(totals["champion"], totals["candidate"], candidate_share=candidate_share)
    decision, reason = _decide(rates, split_p, len(rows), needed, alpha)
    return LiveComparison(
        decision=decision,
        reason=reason,
        sample_size=len(rows),
        effect=rates.effect,
        p_value=rates.p_value,
        interval=rates.interval,
        probability_better=rates.probability_better,
        num_champion=totals["champion"],
        num_candidate=totals["candidate"],
        num_needed=needed,
        ratio_p_value=split_p,
        rates=rates,
    )


def _decide(
    rates: RatesResult, split_p: float, num: int, needed: int, alpha: float
) -> tuple[Literal["candidate", "champion", "undecided", "too_few", "invalid"], str]:
    if split_p < MISMATCH_ALPHA:
        return "invalid", (
            f"the split does not match the plan (p {split_p:.1e}): units were lost on one side, or assigned by another "
            "rule; find the cause before using any figure"
        )
    if num < needed:
        return "too_few", f"{num:,} units are too few: the requested power needs {needed:,}"
    if rates.p_value < alpha:
        better: Literal["candidate", "champion"] = "candidate" if rates.effect > 0 else "champion"
        return better, f"the success rate of the {better} is significantly higher (p {rates.p_value:.2g})"
    return "undecided", f"no significant difference (p {rates.p_value:.2g})"


def _checked(
    rows: Iterable[Mapping[str, Any]], experiment: str | None, candidate_share: float
) -> list[Mapping[str, Any]]:
    checked: list[Mapping[str, Any]] = []
    seen: dict[str, str] = {}
    for row in rows:
        unit, variant = str(row["unit"]), row["variant"]
        if variant not in ("champion", "candidate"):
            raise ConfigError("live", variant, "is not a variant", "write champion or candidate")
        if seen.get(unit, variant) != variant:
            raise ConfigError("live", unit, "is a unit that saw both styles", "leave such units out of both sides")
        if unit in seen:
            cure = "aggregate to one row for each unit, because requests of one unit are not independent"
            raise ConfigError("live", unit, "is a unit with more than one row", cure)
        if experiment and assign(unit, experiment=experiment, candidate_share=candidate_share) != variant:
            cure = "check --experiment, --candidate-share and other code that assigns units"
            raise ConfigError("live", unit, f"saw the {variant}, which {experiment!r} did not assign to it", cure)
        seen[unit] = variant
        checked.append(row)
    return checked
