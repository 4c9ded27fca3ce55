"""Pages about decisions: the comparison of two styles, the vote of people, and retraining.

The vote page, unlike all other pages, talks to the server that sent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylemill.report.pictures import Picture
from stylemill.report.rendering import render
from stylemill.report.run_pages import StyleCard

_VERDICTS = {
    "candidate": "The candidate is better",
    "champion": "The champion stays",
    "undecided": "Undecided: the champion stays",
    "too_few": "Not enough images to decide",
}


def render_comparison_report(comparison: Any, ranking: Any | None = None) -> str:
    """Return the page as HTML.

    Args:
        comparison: object with the fields of ``stylemill.experiments.decision.Comparison``.
        ranking: object with the fields of ``stylemill.experiments.ranking.Ranking``; None without votes.
    """
    return render(
        "comparison.html.j2",
        title=f"{comparison.candidate} against {comparison.champion}",
        verdict=_VERDICTS[comparison.decision],
        comparison=comparison,
        ranking=ranking,
    )


def render_vote_page() -> str:
    """Return the page as HTML; it contains neither images nor names of models."""
    return render("vote.html.j2", title="Which one do you prefer?")


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """The pictures of one image by the two compared models."""

    key: str
    pictures: Sequence[tuple[str, Picture]]
    """(caption, picture) of source, champion and candidate."""


@dataclass(frozen=True, kw_only=True)
class DecisionCard:
    """One decision on the page about retraining."""

    firing: str
    decision: str
    """``promoted``, ``kept`` or ``rolled_back``."""
    champion: str | None
    candidate: str | None
    previous_champion: str | None
    reason: str
    decided_at: str
    evidence: Mapping[str, Any]
    comparisons: Sequence[ImageComparison] = ()


@dataclass(frozen=True, kw_only=True)
class RetrainingReport:
    """Contents of the page about retraining."""

    style: StyleCard
    champion: str | None
    decisions: Sequence[DecisionCard]
    """The newest decisions, oldest first."""
    num_decisions: int
    """Number of all decisions."""
    registry: str


def render_retraining_report(report: RetrainingReport) -> str:
    """Return the page as HTML."""
    return render("retraining.html.j2", title=f"{report.style.name}, retrained", report=report)
