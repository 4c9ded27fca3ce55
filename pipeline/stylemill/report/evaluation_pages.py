"""The page about an evaluation: figures by metric, pictures side by side, what could not be measured.

The page about one picture painted by direct optimisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from stylemill.report.pictures import Picture
from stylemill.report.plots import Series, line_chart
from stylemill.report.rendering import render
from stylemill.report.run_pages import Details, StyleCard

_NAMES = {
    "total_loss": "total loss",
    "content_loss": "content loss",
    "style_loss": "style loss",
    "tv_loss": "total variation",
    "grid_loss": "grid loss",
    "checkerboard": "checkerboard energy",
    "color_shift": "colour shift",
    "structural_similarity": "structural similarity",
    "seconds": "seconds",
}
_NOTES = {
    "total_loss": "weighted sum of the terms",
    "content_loss": "distance of features from the source's",
    "style_loss": "Gram distance from the style, over the style's own energy",
    "tv_loss": "squared differences of neighbouring pixels",
    "grid_loss": "energy at periods of 2 and 4 px",
    "checkerboard": "worst grid frequency over the source's; about 1 without a grid",
    "color_shift": "distance of mean colours, Delta E",
    "structural_similarity": "to the source; 1 is equal",
    "seconds": "for the network, one image",
}


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric of all models."""

    name: str
    note: str
    means: tuple[tuple[str, float, float | None], ...]
    """(model, mean over images, standard error or None for a single image)."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """One source and what each model made of it."""

    key: str
    source: Picture
    results: Sequence[tuple[str, Picture, str]]
    """(model, picture, a few figures)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything the page says."""

    style: StyleCard
    models: Sequence[str]
    num_images: int
    table: pa.Table
    """Rows of the evaluation."""
    judge: str
    """The loss in words."""
    pictures: Sequence[SideBySide] = ()
    yardstick: Sequence[Any] = ()
    """Readings with model, network_loss, network_s, mark_losses, mark_s, equal_iterations, times_faster, sentence."""
    marks: Sequence[int] = ()
    details: Details = field(default_factory=Details)


def render_evaluation_report(report: EvaluationReport) -> str:
    """Return the page as HTML."""
    rows = report.table.to_pylist()
    troubles: dict[str, Mapping[str, Any]] = {row["key"]: row for row in rows if row["status"] != "ok"}
    return render(
        "evaluation.html.j2",
        title=f"{' and '.join(report.models)} measured",
        report=report,
        metrics=metric_rows(report.table),
        layers=_layers(rows, report.models),
        troubles=list(troubles.values())[:100],
        num_troubles=len(troubles),
    )


def metric_rows(table: pa.Table) -> list[MetricRow]:
    """Return mean and standard error of each metric for each model of an evaluation."""
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    return [
        MetricRow(
            name=name,
            note=_NOTES[column],
            means=tuple((model, *_mean([row[column] for row in rows if row["model"] == model])) for model in models),
        )
        for column, name in _NAMES.items()
    ]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), spread


def _layers(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Return (model, mean style loss by layer); images too small for the deepest layers do not enter there."""
    layers = []
    for model in models:
        lists = [row["style_loss_by_layer"] for row in rows if row["model"] == model and row["status"] == "ok"]
        depth = max(map(len, lists), default=0)
        means = [float(np.mean([one[level] for one in lists if len(one) > level])) for level in range(depth)]
        layers.append((model, means))
    return layers


@dataclass(frozen=True, kw_only=True)
class OptimizationReport:
    """Everything the page says."""

    name: str
    style: StyleCard
    source: Picture
    result: Picture
    losses: Sequence[float] | np.ndarray
    """By iteration, the start included."""
    seconds: float
    details: Details = field(default_factory=Details)


def render_optimization_report(report: OptimizationReport) -> str:
    """Return the page as HTML."""
    iterations = np.arange(len(report.losses))
    chart = line_chart(
        [Series(name="total", x=iterations, y=report.losses)],
        title="Loss by iteration, logarithmic",
        x_label="iteration",
        log_y=True,
        height_px=320,
    )
    return render("optimization.html.j2", title=f"{report.name}, painted by optimisation", report=report, chart=chart)
