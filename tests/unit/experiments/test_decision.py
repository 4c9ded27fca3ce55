"""Verdicts on two styles, by metrics and by votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylemill.cli.main import main
from stylemill.errors import ConfigError
from stylemill.experiments.config import Rule
from stylemill.experiments.decision import Comparison, compare
from stylemill.manifest.schema import to_parquet
from tests.unit.experiments.tables import losses, measured, table_of

RULE = Rule(resamples=999)


def decide(old: Any, new: Any, rule: Rule, **options: Any) -> Comparison:
    table = table_of(measured("old", old), measured("new", new))
    return compare(table, champion="old", candidate="new", rule=rule, **options)


def vote(voter: str, key: str, preferred: str | None, models: tuple[str, str] = ("new", "old")) -> dict[str, Any]:
    return {"voter": voter, "key": key, "model_a": models[0], "model_b": models[1], "preferred": preferred}


def test_the_better_candidate_wins_and_the_worse_one_does_not():
    old, new = losses(60)
    better = compare(
        table_of(measured("old", old), measured("new", new - 0.1)), champion="old", candidate="new", rule=RULE
    )
    assert better.decision == "candidate" and better.probability_better > 0.999
    assert better.interval[0] < better.effect < better.interval[1] < 0
    assert better.effect == pytest.approx(-0.1, abs=0.03) and better.sample_size == 60
    worse = compare(
        table_of(measured("old", old), measured("new", new + 0.1)), champion="old", candidate="new", rule=RULE
    )
    assert worse.decision == "champion" and worse.probability_better < 0.001
    assert worse.expected_loss == pytest.approx(0.1, abs=0.03)


def test_a_gain_that_makes_another_metric_worse_does_not_win():
    old, new = losses(60)
    ones = np.ones(60)
    noise = np.random.default_rng(3).normal(0, 0.02, 60)
    rule = Rule(metric=("total_loss", "structural_similarity"), resamples=999)
    table = table_of(
        measured("old", old, structural_similarity=ones), measured("new", new - 0.1, structural_similarity=0.8 + noise)
    )
    found = compare(table, champion="old", candidate="new", rule=rule)
    assert found.decision == "champion" and "structural_similarity" in found.reason


def test_too_few_images_say_how_many_are_needed_and_that_many_suffice():
    old, new = losses(12)
    rule = Rule(minimal_effect=0.01, resamples=999)
    few = decide(old, new, rule)
    assert few.decision == "too_few" and few.num_needed > 12
    assert f"{few.num_needed} are needed; nothing is decided" in few.reason
    one = compare(table_of(measured("old", [1]), measured("new", [2])), champion="old", candidate="new", rule=rule)
    assert one.decision == "too_few" and json.loads(one.to_json())["interval"] == [None, None]


def test_a_model_against_itself_is_undecided():
    old, _ = losses(20)
    same = compare(table_of(measured("old", old), measured("new", old)), champion="old", candidate="new", rule=RULE)
    assert (same.decision, same.p_value, same.probability_better, same.effect) == ("undecided", 1.0, 0.5, 0.0)


def test_several_metrics_are_corrected_as_holm_did():
    """Wikipedia's example of the Holm-Bonferroni method, through statsmodels, as compare calls it."""
    from statsmodels.stats.multitest import multipletests

    assert multipletests([0.01, 0.04, 0.03, 0.005], method="holm")[1] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    old, new = losses(60)
    rule = Rule(metric=("total_loss", "seconds"), resamples=999)
    slow = np.random.default_rng(5).normal(1, 0.1, 60)
    table = table_of(measured("old", old), measured("new", new - 0.013, seconds=slow))
    found = compare(table, champion="old", candidate="new", rule=rule)
    low, high = sorted(found.metrics, key=lambda metric: metric.result.p_value)
    assert 0 < low.p_adjusted == pytest.approx(2 * low.result.p_value)
    assert high.p_adjusted == pytest.approx(max(high.result.p_value, low.p_adjusted))
    assert found.p_value == found.metrics[0].p_adjusted


def test_votes_enter_and_the_image_is_the_unit():
    old, new = losses(60)
    table = table_of(measured("old", old), measured("new", new - 0.1))
    votes = [vote(voter, f"{number:03d}.jpg", "old") for voter in ("ann", "bob") for number in range(40)]
    found = compare(table, champion="old", candidate="new", rule=RULE, votes=[*votes, vote("ann", "050.jpg", None)])
    assert found.decision == "champion" and "preference" in found.reason
    assert found.preference is not None
    assert (found.preference.sample_size, found.preference.num_votes, found.preference.num_ties) == (40, 81, 1)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([vote("ann", "999.jpg", "old")], "ann about 999.jpg.*pictures that are not in the evaluation"),
        ([vote("ann", "001.jpg", "old", ("other", "old"))], "pictures that are not in the evaluation"),
        ([vote("ann", "001.jpg", "old"), vote("ann", "001.jpg", "new")], "ann about 001.jpg.*given twice"),
        ([vote("ann", "001.jpg", "neither")], "is preferred but not one of"),
    ],
)
def test_votes_that_cannot_be_are_refused(votes: list, message: str):
    old, new = losses(20)
    with pytest.raises(ConfigError, match=message):
        compare(
            table_of(measured("old", old), measured("new", new)),
            champion="old",
            candidate="new",
            rule=RULE,
            votes=votes,
        )


def test_runs_without_a_common_image_are_refused():
    old, new = losses(20)
    with pytest.raises(ConfigError, match="no measured image in common"):
        compare(
            table_of(measured("old", old), measured("new", new, start=50)), champion="old", candidate="new", rule=RULE
        )


def test_a_sequential_rule_decides_early_or_continues():
    old, new = losses(40)
    rule = Rule(sequential=True, minimal_effect=0.001, resamples=999)
    early = compare(
        table_of(measured("old", old), measured("new", new - 0.1)), champion="old", candidate="new", rule=rule
    )
    assert early.decision == "candidate" and early.sample_size < early.num_needed
    going = decide(old, new, rule)
    assert going.decision == "undecided" and "more images may be added" in going.reason
    plain = decide(old, new, RULE)
    assert going.interval[1] - going.interval[0] > plain.interval[1] - plain.interval[0]


def test_the_verb_writes_a_verdict_for_machines_and_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = losses(60)
    for name, values in (("old", old), ("new", new - 0.1)):
        (tmp_path / name).mkdir()
        table = table_of(measured(name, values))
        (tmp_path / name / "evaluation.parquet").write_bytes(to_parquet(table))
    both = ["--evaluation", str(tmp_path / "old"), "--evaluation", str(tmp_path / "new")]
    assert main(["compare", *both, "--out", str(tmp_path / "out"), "--resamples", "999"]) == 0
    assert "verdict: candidate" in capsys.readouterr().out
    result = json.loads((tmp_path / "out/comparison.json").read_text())
    assert {"sample_size", "effect", "p_value", "interval", "probability_better", "decision"} <= result.keys()
    assert "The candidate is better" in (tmp_path / "out/report/index.html").read_text()
    few = ["--minimal-effect", "0.0001", "--resamples", "999"]
    assert main(["compare", *both, *few]) == 1
    assert "are needed; nothing is decided" in capsys.readouterr().out
    other = table_of(measured("new", new, judge="another"))
    (tmp_path / "new" / "evaluation.parquet").write_bytes(to_parquet(other))
    assert main(["compare", *both]) == 2
    assert "measured under different losses" in capsys.readouterr().err
