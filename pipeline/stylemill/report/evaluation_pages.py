"""Pages about measurements: an evaluation of one or more styles, and one directly optimised picture."""

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

_METRIC_NAMES = {
    "total_loss": "total loss",
    "content_loss": "content loss",
    "style_loss": "style loss",
    "tv_loss": "total variation",
    "grid_loss": "grid loss",
    "checkerboard": "checkerboard energy",
    "diagonals": "diagonal lattice",
    "rim": "rim",
    "halo": "halo",
    "blobs": "blobs",
    "color_shift": "colour shift",
    "structural_similarity": "structural similarity",
    "crop_difference": "crop difference",
    "seconds": "seconds",
}
_METRIC_NOTES = {
    "total_loss": "weighted sum of the terms",
    "content_loss": "distance between the features of picture and source, whatever their contrast",
    "style_loss": "distance between the colours and Gram matrices of picture and style",
    "tv_loss": "squared differences of neighbouring pixels",
    "grid_loss": "energy at periods of 2 and 4 px",
    "checkerboard": "highest energy of a grid, relative to the source; about 1 without a grid",
    "diagonals": "highest energy of an oblique lattice, relative to the source; about 1 without one",
    "rim": "change of colour towards the border, relative to the source; about 1 without a rim",
    "halo": "1 plus the overshoot along edges as a fraction of their step; 1 without halos",
    "blobs": "how far the strongest spot stands out, relative to the source; about 1 without blobs",
    "color_shift": "distance between the mean colours of picture and source, Delta E",
    "structural_similarity": "of picture and source; 1 if they are equal",
    "crop_difference": "how differently the same part of two crops is painted, of 255 levels",
    "seconds": "of the network for one image",
}
_SPREADS = {
    "palette": ("palette spread", "of the mean colours over the images, relative to the sources'"),
    "strokes": ("stroke spread", "of the energies of details over the images, relative to the sources'"),
}
"""Columns with the properties of a picture, and name and note of their spread over the images."""


_LEAST_SPREAD = 1e-6
"""Of equal sources, to which no spread can be related."""


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """The values of one metric for all models."""

    name: str
    note: str
    means: tuple[tuple[str, float, float | None], ...]
    """(model, mean over images, standard error or None for a single image)."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """One source next to its pictures by all models."""

    key: str
    source: Picture
    results: Sequence[tuple[str, Picture, str]]
    """(model, picture, figures in one line)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Contents of the page about an evaluation."""

    style: StyleCard
    models: Sequence[str]
    num_images: int
    table: pa.Table
    """Rows of the evaluation."""
    judge: str
    """Description of the loss."""
    pictures: Sequence[SideBySide] = ()
    yardstick: Sequence[Any] = ()
    """Results with the fields of ``stylemill.evaluation.optimize.YardstickResult``, one for each model."""
    reported_iterations: Sequence[int] = ()
    """Iterations of the optimisation for which the results have losses and seconds."""
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
    """Return mean and standard error of each metric for each model of an evaluation, and spreads over its images."""
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    own = {model: [row for row in rows if row["model"] == model] for model in models}
    metrics = [
        MetricRow(
            name=name,
            note=_METRIC_NOTES[column],
            means=tuple((model, *_mean([row[column] for row in own[model]])) for model in models),
        )
        for column, name in _METRIC_NAMES.items()
        if all(row[column] is not None for row in rows)  # earlier versions measured less
    ]
    for column, (name, note) in _SPREADS.items():
        if any(row[column] is None for row in rows):
            continue  # of an earlier version
        means: list[tuple[str, float, float | None]] = []
        for model, its in own.items():
            ratio = spread([row[column] for row in its], [row[f"source_{column}"] for row in its])
            if ratio is not None:
                means.append((model, ratio, None))
        if own and len(means) == len(own):
            metrics.append(MetricRow(name=name, note=note, means=tuple(means)))
    return metrics


def spread(results: Sequence[Any], sources: Sequence[Any]) -> float | None:
    """Return the standard deviation of a property over pictures, divided by that over their sources.

    Args:
        results: vectors of equal length, one for each picture.
        sources: the same of the sources.
    Returns:
        None if the sources are alike, as a single one is.
    """
    of_results, of_sources = (np.sqrt(np.var(of, axis=0).sum()) for of in (results, sources))
    return float(of_results / of_sources) if of_sources > _LEAST_SPREAD else None


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), spread


def _layers(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Return (model, mean style loss by layer); images without the deepest layers do not count for these layers."""
    layers = []
    for model in models:
        lists = [row["style_loss_by_layer"] for row in rows if row["model"] == model and row["status"] == "ok"]
        depth = max(map(len, lists), default=0)
        means = [float(np.mean([one[level] for one in lists if len(one) > level])) for level in range(depth)]
        layers.append((model, means))
    return layers


@dataclass(frozen=True, kw_only=True)
class OptimizationReport:
    """Contents of the page about a directly optimised picture."""

    name: str
    style: StyleCard
    source: Picture
    result: Picture
    losses: Sequence[float] | np.ndarray
    """Total loss by iteration, from the start on."""
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
