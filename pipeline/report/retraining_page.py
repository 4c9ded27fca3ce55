"""The page about retraining: which version is in use, and why each decision fell as it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.report.pages import StyleCard
from pipeline.report.pictures import Picture
from pipeline.report.rendering import render


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One image of a comparison."""

    key: str
    pictures: Sequence[tuple[str, Picture]]
    """What it is (source, champion, candidate) and the picture."""


@dataclass(frozen=True, kw_only=True)
class DecisionCard:
    """One decision."""

    firing: str
    decision: str
    """``promoted``, ``kept`` or ``rolled_back``."""
    champion: str | None
    candidate: str | None
    previous_champion: str | None
    reason: str
    decided_at: str
    evidence: Mapping[str, Any]
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True, kw_only=True)
class RetrainingStory:
    """Everything the page says."""

    style: StyleCard
    champion: str | None
    decisions: Sequence[DecisionCard]
    """Oldest first."""
    registry: str
    counts: Mapping[str, int] = field(default_factory=dict)


def render_retraining_report(story: RetrainingStory) -> str:
    """Return the page as HTML."""
    return render("retraining.html.j2", title=f"{story.style.name}, retrained", story=story)
