"""The page about one picture painted by direct optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.report.pages import Details, StyleCard
from pipeline.report.pictures import Picture
from pipeline.report.plots import Series, line_chart
from pipeline.report.rendering import render


@dataclass(frozen=True, kw_only=True)
class OptimizationStory:
    """Everything the page says."""

    name: str
    style: StyleCard
    source: Picture
    result: Picture
    losses: Sequence[float] | np.ndarray
    """By iteration, the start included."""
    seconds: float
    details: Details = field(default_factory=Details)


def render_optimization_report(story: OptimizationStory) -> str:
    """Return the page as HTML."""
    iterations = np.arange(len(story.losses))
    chart = line_chart(
        [Series(name="total", x=iterations, y=story.losses)],
        title="Loss by iteration, logarithmic",
        x_label="iteration",
        log_y=True,
        height_px=320,
    )
    return render("optimization.html.j2", title=f"{story.name}, painted by optimisation", story=story, chart=chart)
