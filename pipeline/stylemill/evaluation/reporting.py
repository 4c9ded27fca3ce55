"""Writes the pages about an evaluation and about a direct optimisation."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from stylemill.config import to_mapping
from stylemill.evaluation.config import OptimizeConfig
from stylemill.evaluation.image_metrics import Image
from stylemill.evaluation.judge import Judge
from stylemill.evaluation.measure import PreparedEvaluation, to_png
from stylemill.evaluation.optimize import REPORTED_ITERATIONS, Optimization, YardstickResult
from stylemill.evaluation.schema import table_uri
from stylemill.report.evaluation_pages import (
    EvaluationReport,
    OptimizationReport,
    SideBySide,
    render_evaluation_report,
    render_optimization_report,
)
from stylemill.report.pictures import embed
from stylemill.report.run_pages import Details
from stylemill.report.write import style_card
from stylemill.storage import Storage, join
from stylemill.storage.uri import name


def write_evaluation_page(
    storage: Storage, prepared: PreparedEvaluation, table: pa.Table, yardstick: Sequence[YardstickResult] = ()
) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    config, judge = prepared.config, prepared.judge
    weights = judge.weights
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    description = (
        f"the loss network {config.judge.loss_network} with weights {weights.content:g} for content, "
        f"{weights.style:g} for style, {weights.total_variation:g} for smoothness, {weights.grid:g} against grids; "
        f"shorter side {config.size_px} px"
    )
    report = EvaluationReport(
        style=style_card(next(iter(prepared.models.values())).name, to_png(judge.style_HWC)),
        models=list(prepared.models),
        num_images=len({row["key"] for row in rows}),
        table=table,
        judge=description,
        pictures=_pictures(storage, rows, config.pictures),
        yardstick=yardstick,
        reported_iterations=[at for at in REPORTED_ITERATIONS if at <= config.yardstick_iterations],
        details=Details(
            facts={
                "table": table_uri(prepared.out),
                "loss network": f"{config.judge.loss_network} {judge.network.digest()[:16]}",
                "judge": prepared.judge_digest,
                **{f"model {label}": model.sha256 for label, model in prepared.models.items()},
            },
            config=to_mapping(config),
        ),
    )
    uri = join(prepared.out, "report", "index.html")
    storage.write_bytes(uri, render_evaluation_report(report).encode())
    return uri


def _pictures(storage: Storage, rows: Sequence[dict], num: int) -> list[SideBySide]:
    """Return ``num`` images at equal steps from the lowest to the highest total loss of the first model."""
    first = [row for row in rows if row["model"] == rows[0]["model"]]
    ordered = sorted(first, key=lambda row: row["total_loss"])
    step = max(1, len(ordered) / max(1, num))
    chosen = [ordered[int(at * step)] for at in range(min(num, len(ordered)))]
    comparisons = []
    for row in chosen:
        source = embed(storage.read_bytes(row["source_picture_uri"]), alt=f"{row['key']}, the original")
        results = [
            (
                other["model"],
                embed(storage.read_bytes(other["picture_uri"]), alt=f"{row['key']} in {other['model']}"),
                f"loss {other['total_loss']:.3g}: content {other['content_loss']:.3g}, style {other['style_loss']:.3g}",
            )
            for other in rows
            if other["key"] == row["key"]
        ]
        comparisons.append(SideBySide(key=row["key"], source=source, results=results))
    return comparisons


def write_optimization_page(
    storage: Storage, out: str, config: OptimizeConfig, judge: Judge, source_HWC: Image, found: Optimization
) -> str:
    """Write ``OUT/report/index.html`` about a directly optimised picture and return its location."""
    key = name(config.content)
    report = OptimizationReport(
        name=key,
        style=style_card("the style", to_png(judge.style_HWC)),
        source=embed(to_png(source_HWC), alt=f"{key}, the original"),
        result=embed(to_png(found.result_HWC), alt=f"{key}, repainted"),
        losses=found.losses,
        seconds=float(found.seconds[-1]),
        details=Details(facts={"picture": join(out, "result.png")}, config=to_mapping(config)),
    )
    uri = join(out, "report", "index.html")
    storage.write_bytes(uri, render_optimization_report(report).encode())
    return uri
