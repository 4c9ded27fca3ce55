from __future__ import annotations

import pytest

from stylemill.report.decision_pages import DecisionCard, RetrainingReport, render_retraining_report
from stylemill.report.run_pages import StyleCard

EVIDENCE = {
    "metric": "total_loss", "sample_size": 24, "num_needed": 20, "champion_mean": 1.23, "candidate_mean": 1.19,
    "effect": -0.04, "relative_effect": -0.033, "p_value": 0.0012, "interval": (-0.05, -0.03),
    "probability_of_being_better": 0.999,
}  # fmt: skip


def _page(evidence: dict[str, object], num_decisions: int = 1) -> str:
    card = DecisionCard(
        firing="night", decision="promoted", champion="v2", candidate="v2", previous_champion="v1",
        reason="it is better", decided_at="2026-11-08T03:12:00Z", evidence=evidence,
    )  # fmt: skip
    report = RetrainingReport(
        style=StyleCard(name="waves"), champion="v2", decisions=[card], num_decisions=num_decisions, registry="r"
    )
    return render_retraining_report(report)


@pytest.mark.parametrize(("confidence", "words"), [(0.95, "95 % confidence"), (0.9, "90 % confidence")])
def test_an_interval_has_its_level(confidence, words):
    assert f"between -0.0500 and -0.0300 with {words}." in _page(EVIDENCE | {"confidence": confidence})


def test_the_level_of_an_earlier_outcome_is_not_known():
    assert "between -0.0500 and -0.0300." in _page(EVIDENCE)


def test_older_decisions_are_counted():
    page = _page(EVIDENCE, num_decisions=31)
    assert "after 31 decisions" in page
    assert "1 of 31 shown. The others are older." in page
    assert "shown." not in _page(EVIDENCE)
