"""Decisions about a champion: how one is made, and the file that records it.

``decide`` turns the comparison of ``stylemill.experiments`` into promote or keep. An ``Outcome`` is the stored decision
of a firing or a rollback, for machines and for people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from stylemill.errors import ObjectNotFound, RegistryError
from stylemill.experiments.decision import Comparison, compare
from stylemill.retraining.config import RetrainConfig
from stylemill.storage import Storage, join, resolve
from stylemill.storage.json_records import record_from_json, record_to_json

DecisionKind = Literal["promoted", "kept", "rolled_back"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Figures on which a decision is based; None where nothing was compared."""

    metric: str | None = None
    sample_size: int = 0
    num_needed: int = 0
    """Images that the requested power needs."""
    champion_mean: float | None = None
    candidate_mean: float | None = None
    effect: float | None = None
    """Candidate minus champion, in units of the metric."""
    relative_effect: float | None = None
    """The effect divided by the champion's mean."""
    p_value: float | None = None
    """Two-sided, corrected for the number of metrics."""
    interval: tuple[float, float] | None = None
    """Confidence interval of the effect."""
    confidence: float | None = None
    """Level of the interval: 1 minus the rule's alpha."""
    probability_of_being_better: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One decision about a style's champion; stored as ``OUT/outcomes/<firing>.json``."""

    firing: str
    style: str
    decision: DecisionKind
    champion: str | None
    """Version in use after the decision."""
    candidate: str | None
    """Version about which the decision was made."""
    previous_champion: str | None
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    """The fields of an ``Evidence``."""
    begun_at: str
    decided_at: str
    """UTC, ISO 8601."""

    def to_bytes(self) -> bytes:
        """Return the outcome as JSON."""
        return record_to_json(self)

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> Outcome:
        """Read an outcome.

        Raises:
            RegistryError: the file is damaged.
        """
        return record_from_json(cls, data, uri, cure="remove it to decide again", error_type=RegistryError)


def read_outcome(storage: Storage, uri: str) -> Outcome | None:
    """Return the outcome at a location, or None if it does not exist."""
    try:
        return Outcome.from_bytes(storage.read_bytes(uri), uri)
    except ObjectNotFound:
        return None


def load_outcomes(storage: Storage, out: str) -> list[Outcome]:
    """Return all outcomes below an output location, in order of their decisions."""
    root = join(resolve(out), "outcomes")
    uris = [join(root, found.key) for found in storage.list_objects(root) if found.key.endswith(".json")]
    outcomes = [Outcome.from_bytes(storage.read_bytes(uri), uri) for uri in uris]
    return sorted(outcomes, key=lambda outcome: (outcome.decided_at, outcome.firing))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of comparing a candidate with the champion."""

    is_better: bool
    reason: str
    evidence: Evidence


def decide(table: pa.Table, champion: str, candidate: str, config: RetrainConfig) -> Verdict:
    """Compare two models on the images that both painted; only a significant improvement promotes.

    Args:
        table: rows of EVALUATION_SCHEMA.
        champion: value of the column ``model`` for the champion.
        candidate: value of the column ``model`` for the candidate.
        config: holds the rule of the comparison.

    Raises:
        ConfigError: no image was painted by both, or a metric is not finite.
    """
    found = compare(table, champion=champion, candidate=candidate, rule=config.rule)
    return Verdict(is_better=found.decision == "candidate", reason=_sentence(found), evidence=_evidence(found))


def _sentence(found: Comparison) -> str:
    if not math.isfinite(found.relative_effect):
        return found.reason
    change = f"{found.metric} {found.relative_effect:+.1%} over {found.sample_size} images"
    return f"{found.reason} ({change}, better with probability {found.probability_better:.3f})"


def _evidence(found: Comparison) -> Evidence:
    first = found.metrics[0] if found.metrics else None
    interval = (_finite(found.interval[0]), _finite(found.interval[1]))
    return Evidence(
        metric=found.metric,
        sample_size=found.sample_size,
        num_needed=found.num_needed,
        champion_mean=_finite(first.mean_champion) if first else None,
        candidate_mean=_finite(first.mean_candidate) if first else None,
        effect=_finite(found.effect),
        relative_effect=_finite(found.relative_effect),
        p_value=_finite(found.p_value),
        interval=interval if None not in interval else None,
        confidence=1 - found.rule["alpha"],
        probability_of_being_better=_finite(found.probability_better),
    )


def _finite(value: float) -> Any:
    return value if math.isfinite(value) else None
