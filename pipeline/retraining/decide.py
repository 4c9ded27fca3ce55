"""Whether a candidate replaces the champion: the comparison of ``pipeline.evaluation`` as a yes or a no."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.evaluation.comparison import Comparison, compare
from pipeline.retraining.config import RetrainConfig
from pipeline.retraining.outcome import Evidence


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison says."""

    is_better: bool
    reason: str
    evidence: Evidence


def decide(table: pa.Table, champion: str, candidate: str, config: RetrainConfig) -> Verdict:
    """Compare two models on the images that both painted; only a clear win promotes.

    Args:
        table: rows of EVALUATION_SCHEMA.
        champion: its ``model`` in the table.
        candidate: its ``model`` in the table.
        config: by which rule.

    Raises:
        ConfigError: no images that both painted, or a metric that is not finite.
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
        probability_of_being_better=_finite(found.probability_better),
    )


def _finite(value: float) -> Any:
    return value if math.isfinite(value) else None
