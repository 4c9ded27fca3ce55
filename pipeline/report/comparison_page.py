"""The page about a comparison: the verdict first, then what it rests on."""

from __future__ import annotations

from typing import Any

from pipeline.report.rendering import render

_VERDICTS = {
    "candidate": "The candidate is better",
    "champion": "The champion stays",
    "undecided": "Undecided: the champion stays",
    "too_few": "Too little to decide",
}


def render_comparison_report(comparison: Any, standing: Any | None = None) -> str:
    """Return the page as HTML.

    Args:
        comparison: with the fields of ``pipeline.evaluation.comparison.Comparison``.
        standing: of ``pipeline.evaluation.standing.Standing``; None without votes.
    """
    return render(
        "comparison.html.j2",
        title=f"{comparison.candidate} against {comparison.champion}",
        verdict=_VERDICTS[comparison.decision],
        comparison=comparison,
        standing=standing,
    )
