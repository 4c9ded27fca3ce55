"""The page on which people vote; unlike the reports it talks to the server that gave it."""

from __future__ import annotations

from pipeline.report.rendering import render


def render_vote_page() -> str:
    """Return the page as HTML; it knows neither images nor models."""
    return render("vote.html.j2", title="Which one do you prefer?")
