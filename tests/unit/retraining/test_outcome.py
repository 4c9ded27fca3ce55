"""Decisions: only a significantly better candidate is promoted."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stylemill.errors import ConfigError
from stylemill.evaluation.schema import EVALUATION_SCHEMA
from stylemill.manifest.schema import make_table
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.outcome import decide


def config(**changes: Any) -> RetrainConfig:
    values = {"style_image": "s.jpg", "content": ("c",), "out": "o", "holdout": "h", **changes}
    return RetrainConfig(**values)


def table(old: list[float | None], new: list[float | None], metric: str = "total_loss") -> pa.Table:
    """Return an evaluation of the models ``old`` and ``new``; None is an image that could not be painted."""
    rows = []
    for model, values in (("old", old), ("new", new)):
        for number, value in enumerate(values):
            status = "failed" if value is None else "ok"
            row = {"model": model, "model_sha256": model, "key": f"{number:03d}", "uri": "u", "stratum": ""}
            rows.append({**row, "status": status, "judge": "j", metric: value})
    return make_table(rows, EVALUATION_SCHEMA)


OLD = [5.0, 6.0, 7.0, 8.0, 9.0, 5.5, 6.0, 7.0]
NEW = [4.0, 5.1, 5.9, 7.0, 8.1, 4.4, 5.0, 6.1]


def test_a_clear_win_promotes_with_its_figures():
    verdict = decide(table(OLD, NEW), "old", "new", config(minimal_effect=0.1))
    assert verdict.is_better and verdict.reason.startswith("total_loss is significantly better")
    evidence = verdict.evidence
    assert evidence.sample_size == 8 and evidence.effect == pytest.approx(-1.0, abs=0.02)
    assert evidence.interval is not None and evidence.interval[0] < -1.0 < evidence.interval[1] < 0
    assert evidence.p_value is not None and evidence.p_value < 0.001
    assert evidence.probability_of_being_better is not None and evidence.probability_of_being_better > 0.999


@pytest.mark.parametrize(
    ("old", "new", "changes", "reason"),
    [
        (NEW, OLD, {"minimal_effect": 0.1}, "the candidate is significantly worse"),
        (OLD, OLD, {}, "no significant difference"),
        (OLD, [5.5, 5.0, 7.9, 7.0, 9.9, 5.0, 6.5, 6.5], {"minimal_effect": 0.3}, "no significant difference"),
        (OLD, [5.5, 5.0, 7.9, 7.0, 9.9, 3.0, 6.0, 7.5], {"minimal_effect": 0.001}, "8 images are too few"),
        (OLD[:1], NEW[:1], {}, "1 image is too few"),
    ],
)
def test_everything_else_keeps_the_champion(old: list, new: list, changes: dict[str, Any], reason: str):
    verdict = decide(table(old, new), "old", "new", config(**changes))
    assert not verdict.is_better and verdict.reason.startswith(reason)


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_interval_has_its_level(alpha: float):
    evidence = decide(table(OLD, NEW), "old", "new", config(minimal_effect=0.1, alpha=alpha)).evidence
    assert evidence.confidence == pytest.approx(1 - alpha)


def test_only_images_that_both_painted_count():
    verdict = decide(table([*OLD, None, 1.0], [*NEW, 1.0, None]), "old", "new", config(minimal_effect=0.1))
    assert verdict.evidence.sample_size == 8


def test_what_is_not_finite_decides_nothing():
    with pytest.raises(ConfigError):
        decide(table(OLD, [*NEW[:7], float("nan")]), "old", "new", config())


def test_unknown_metrics_are_refused_before_anything_begins():
    with pytest.raises(ConfigError, match="metric"):
        config(metric=("beauty",))


def test_a_huge_effect_does_not_break_the_power():
    old = [5.0 + 0.001 * number for number in range(8)]
    new = [value / 2 + 0.0001 * (number % 3) for number, value in enumerate(old)]
    assert decide(table(old, new), "old", "new", config(minimal_effect=0.5)).is_better
