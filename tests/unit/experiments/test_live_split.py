"""Live splits: assignment, the check of the split, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stylemill.errors import ConfigError
from stylemill.experiments.live_split import assign, compare_live, ratio_p_value


def live(champion: tuple[int, int], candidate: tuple[int, int]) -> list[dict[str, Any]]:
    sides = (("champion", *champion), ("candidate", *candidate))
    return [
        {"unit": f"{side}-{number}", "variant": side, "success": number < wins}
        for side, wins, total in sides
        for number in range(total)
    ]


@pytest.mark.parametrize(
    ("rows", "decision"),
    [
        (live((400, 2000), (500, 2010)), "candidate"),
        (live((400, 2000), (405, 2010)), "undecided"),
        (live((40, 200), (50, 201)), "too_few"),
        (live((400, 2000), (600, 2300)), "invalid"),
    ],
)
def test_a_live_split(rows: list, decision: str):
    found = compare_live(rows, alpha=0.05, power=0.8, minimal_effect=0.04)
    assert found.decision == decision


def test_units_that_saw_both_or_came_twice_or_were_not_assigned_are_refused():
    rule: dict[str, Any] = {"alpha": 0.05, "power": 0.8, "minimal_effect": 0.1}
    row = {"unit": "u", "variant": "champion", "success": True}
    with pytest.raises(ConfigError, match="saw both styles"):
        compare_live([row, row | {"variant": "candidate"}], **rule)
    with pytest.raises(ConfigError, match="more than one row"):
        compare_live([row, row], **rule)
    other = "candidate" if assign("u", experiment="e") == "champion" else "champion"
    with pytest.raises(ConfigError, match="did not assign"):
        compare_live([row | {"variant": other}], experiment="e", **rule)
    with pytest.raises(ConfigError, match="has no units"):
        compare_live([row], **rule)


def test_assignment_is_steady_balanced_and_new_for_each_experiment():
    units = [f"asset-{number}" for number in range(20_000)]
    first = [assign(unit, experiment="one") for unit in units]
    assert first == [assign(unit, experiment="one") for unit in units]
    assert ratio_p_value(first.count("champion"), first.count("candidate")) > 0.001
    same = np.mean([one == assign(unit, experiment="two") for unit, one in zip(units, first, strict=True)])
    assert same == pytest.approx(0.5, abs=0.015)
    tenth = [assign(unit, experiment="one", candidate_share=0.1) for unit in units]
    assert ratio_p_value(tenth.count("champion"), tenth.count("candidate"), candidate_share=0.1) > 0.001
    # Whoever sees the candidate at a small share keeps it when the share grows.
    assert all(one == "candidate" for one, at_tenth in zip(first, tenth, strict=True) if at_tenth == "candidate")


def test_a_sample_ratio_mismatch():
    """Kohavi, Tang and Xu 2020, Trustworthy Online Controlled Experiments, chapter 21: p 1.8e-6."""
    assert ratio_p_value(821_588, 815_482) == pytest.approx(1.8e-6, rel=0.03)
