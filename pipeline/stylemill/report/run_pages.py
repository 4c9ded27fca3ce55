"""Pages about runs: training, bulk and demo, rendered from report dataclasses without any I/O.

A report dataclass holds the contents of a page; ``render_*_report`` returns one self-contained HTML document.
``stylemill.report.write`` reads the contents and stores the pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from stylemill.report.pictures import Pair, Picture
from stylemill.report.plots import Chart, Series, line_chart
from stylemill.report.rendering import render
from stylemill.report.summary import STAGES, BulkSummary

_LOSS_COLUMNS = (
    ("loss", "total", None),
    ("content_loss", "content", "content_weight"),
    ("style_loss", "style", "style_weight"),
    ("tv_loss", "total variation", "tv_weight"),
    ("grid_loss", "grid", "grid_weight"),
    ("lattice_loss", "lattice", "lattice_weight"),
    ("teacher_loss", "teacher", "teacher_weight"),
    ("steady_loss", "steady", "steady_weight"),
    ("photo_loss", "photo", "photo_weight"),
)
"""Column, name, and the setting with its weight in the total."""
_MIN_PACE_POINTS = 20
"""Shorter runs get no chart of their pace."""
_STAGE_NAMES = {"decode_ms": "decode", "stylize_ms": "network", "encode_ms": "encode"}


@dataclass(frozen=True, kw_only=True)
class StyleCard:
    """A style with its picture and colours."""

    name: str
    picture: Picture | None = None
    """The style image; None if it is not available."""
    colours: tuple[str, ...] = ()
    """Main colours of the style image as ``#rrggbb``."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """End of a page: facts and settings of the run."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """Short facts by name, such as run id, fingerprint, digest, machine, peak memory."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run; the page shows locations without credentials."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Contents of the page about a training run."""

    style: StyleCard
    metrics: pa.Table
    """One row per step: step, loss, content_loss, style_loss, tv_loss, learning_rate, images_per_s, ..."""
    samples: Sequence[tuple[str, Picture]] = ()
    """(caption, grid of contents over results), oldest first."""
    num_samples: int = 0
    """Number of grids that the run wrote; the page may show fewer."""
    events: Sequence[str] = ()
    """Resumes, rollbacks and the like, one sentence each."""
    details: Details = field(default_factory=Details)


@dataclass(frozen=True, kw_only=True)
class BulkReport:
    """Contents of the page about a bulk run."""

    run_id: str
    summary: BulkSummary
    styles: Sequence[StyleCard] = ()
    pairs: Sequence[Pair] = ()
    details: Details = field(default_factory=Details)


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Contents of the page about a demo: training, bulk run and verification."""

    training: TrainingReport
    bulk: BulkReport
    verification: str
    """Result of the verification of the manifest in one sentence."""
    verified: bool
    sheet: Picture | None = None
    """Photographs of the library in all styles of the demo."""
    stages_s: Sequence[tuple[str, float]] = ()
    """(name, seconds) of each step of the demo, in order."""
    facts: Mapping[str, object] = field(default_factory=dict)


def render_training_report(report: TrainingReport) -> str:
    """Return the page about a training run as HTML."""
    return render("training.html.j2", title=f"Training of {report.style.name}", training=_training_view(report))


def render_bulk_report(report: BulkReport) -> str:
    """Return the page about a bulk run as HTML."""
    return render("bulk.html.j2", title=f"Run {report.run_id}", bulk=_bulk_view(report))


def render_demo_report(report: DemoReport) -> str:
    """Return the page about a demo as HTML."""
    return render(
        "demo.html.j2",
        title=f"{report.training.style.name}: a style and its library",
        report=report,
        training=_training_view(report.training),
        bulk=_bulk_view(report.bulk),
    )


def _training_view(report: TrainingReport) -> dict[str, Any]:
    metrics = report.metrics
    steps = _column(metrics, "step")
    rates = _column(metrics, "images_per_s")
    first, last = _ends(_column(metrics, "loss"))
    return {
        "report": report,
        "num_steps": metrics.num_rows,
        "first_loss": first,
        "last_loss": last,
        "images_per_s": _median(rates),
        "wait_percent": _wait_percent(metrics, report.details.config),
        "num_skipped": int(np.nansum(_column(metrics, "skipped"))),
        "peak_memory_bytes": _largest(_column(metrics, "peak_memory_bytes")),
        "loss_chart": _loss_chart(metrics, steps, report.details.config),
        "gradient_chart": _single(
            steps, _column(metrics, "gradient_norm"), "gradient norm", "Gradient norm by step", log_y=True
        ),
        "rate_chart": _single(steps, rates, "images a second", "Training pace by step"),
        "wait_chart": _single(steps, _column(metrics, "data_wait_s"), "seconds", "Seconds waiting for images by step"),
        "learning_rate_chart": _single(
            steps, _column(metrics, "learning_rate"), "learning rate", "Learning rate by step"
        ),
    }


def _loss_chart(metrics: pa.Table, steps: np.ndarray, config: Mapping[str, Any]) -> Chart | None:
    """Draw what each term adds to the total; a term whose weight the settings lack is drawn as it is."""
    series = []
    for column, name, setting in _LOSS_COLUMNS:
        weight = config.get(setting, 1.0) if setting else 1.0
        factor = float(weight) if isinstance(weight, int | float) else 1.0
        series.append(Series(name=name, x=steps, y=factor * _column(metrics, column), emphasis=column == "loss"))
    return line_chart(series, title="Loss by step, logarithmic", x_label="step", log_y=True, height_px=360)


def _single(steps: np.ndarray, values: np.ndarray, name: str, title: str, *, log_y: bool = False) -> Chart | None:
    series = [Series(name=name, x=steps, y=values)]
    return line_chart(series, title=title, x_label="step", log_y=log_y, width_px=540, height_px=190)


def _wait_percent(metrics: pa.Table, config: Mapping[str, Any]) -> str | None:
    """Return the percentage of the training time spent on waiting for images, or None if it is unknown."""
    waits_s, rates = _column(metrics, "data_wait_s"), _column(metrics, "images_per_s")
    batch_size = config.get("batch_size")
    known = np.isfinite(waits_s) & np.isfinite(rates) & (rates > 0)
    if not isinstance(batch_size, int) or not known.any():
        return None
    return f"{100 * waits_s[known].sum() / (batch_size / rates[known]).sum():.1f}"


def _column(metrics: pa.Table, name: str) -> np.ndarray:
    """Return a column as float64 with NaN for null; all NaN if the table does not have it."""
    if name not in metrics.column_names:
        return np.full(metrics.num_rows, np.nan)
    return np.asarray(metrics[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _ends(values: np.ndarray) -> tuple[float | None, float | None]:
    """Return the first value and, to average out noise, the mean of the last twentieth of the values."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None, None
    return float(known[0]), float(known[-max(1, len(known) // 20) :].mean())


def _largest(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else None


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _bulk_view(report: BulkReport) -> dict[str, Any]:
    summary = report.summary
    seconds, pace = summary.pace()
    total_ms = sum(durations.total_ms for durations in summary.stages.values())
    stages = [
        {
            "name": _STAGE_NAMES[name],
            "median_ms": summary.stages[name].quantile(0.5),
            "slow_ms": summary.stages[name].quantile(0.95),
            "share": summary.stages[name].total_ms / total_ms if total_ms else 0.0,
        }
        for name in STAGES
    ]
    return {
        "report": report,
        "summary": summary,
        "stages": stages,
        "statuses": [
            (status, summary.statuses[status], summary.statuses[status] / max(1, summary.num_rows))
            for status in ("ok", "failed", "skipped")
        ],
        "errors": summary.errors.most_common(),
        "pace_chart": line_chart(
            [Series(name="images a second", x=seconds, y=pace)],
            title="Images finished a second over the run",
            x_label="seconds since the first image",
            height_px=200,
        )
        if len(pace) >= _MIN_PACE_POINTS
        else None,
        "trouble_choices": _choices(summary.troubles, {"status": "Status", "folder": "Folder", "style": "Style"}),
        "pair_choices": _choices(report.pairs, {"folder": "Folder", "style": "Style"}),
    }


def _choices(items: Sequence[Any], labels: Mapping[str, str]) -> dict[str, tuple[str, list[str]]]:
    """Return (label, sorted values) by attribute of the items, for filters; an attribute with one value has none."""
    values = {name: sorted({getattr(item, name) for item in items}) for name in labels}
    return {name: (labels[name], found) for name, found in values.items() if len(found) > 1}
