"""One page of every kind with contents that are hard to lay out: long names, digests, locations, many columns."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from stylemill.evaluation.optimize import YardstickResult
from stylemill.experiments.config import Rule
from stylemill.experiments.decision import compare
from stylemill.experiments.ranking import RankedModel, Ranking
from stylemill.manifest.schema import MANIFEST_SCHEMA, make_table
from stylemill.report.decision_pages import (
    DecisionCard,
    ImageComparison,
    RetrainingReport,
    render_comparison_report,
    render_retraining_report,
    render_vote_page,
)
from stylemill.report.evaluation_pages import (
    EvaluationReport,
    OptimizationReport,
    SideBySide,
    render_evaluation_report,
    render_optimization_report,
)
from stylemill.report.pictures import Pair, Picture, embed, palette
from stylemill.report.run_pages import (
    BulkReport,
    DemoReport,
    Details,
    StyleCard,
    TrainingReport,
    render_bulk_report,
    render_demo_report,
    render_training_report,
)
from stylemill.report.summary import summarize
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.outcome import decide
from tests.drawn import image_bytes
from tests.unit.experiments.tables import losses, measured, table_of

DIGEST = "0123456789abcdef" * 4
STYLES = ("vg_starry_night", "stained-glass", "woodcut")
KEYS = (
    "catalogue_2026/living-room/sofas_and_armchairs/three_seater_sofa_oak_legs_front_view.jpg",
    "catalogue_2026/kitchen/upload cut off.jpg",
    "notes.txt",
)
LOCATION = "s3://assets-of-a-company/libraries/photographs/original_size/"
OLD, NEW = "vg_starry_night-20261101-030000-ab12cd34", "vg_starry_night-20261108-030000-ef56ab78"


def all_pages() -> dict[str, str]:
    """Return each kind of page by its name, as HTML."""
    training, bulk = _training(), _bulk()
    demo = DemoReport(
        training=training,
        bulk=bulk,
        verification=f"2 problems, the first: damaged {LOCATION}{KEYS[0]}: another SHA-256",
        verified=False,
        sheet=_picture(500, 700, max_side_px=1400),
        stages_s=[("training took", 154.0), ("repainting took", 48.0)],
        facts={"peak memory": "2.9 GB, Ray and all its processes included"},
    )
    return {
        "training": render_training_report(training),
        "bulk": render_bulk_report(bulk),
        "demo": render_demo_report(demo),
        "evaluation": render_evaluation_report(_evaluation()),
        "optimization": render_optimization_report(_optimization()),
        "comparison": _comparison(),
        "retraining": render_retraining_report(_retraining()),
        "vote": render_vote_page(),
    }


def _picture(height_px: int = 200, width_px: int = 300, **options: Any) -> Picture:
    return embed(image_bytes(height_px, width_px), alt="a drawn picture", **options)


def _style(name: str = STYLES[0]) -> StyleCard:
    image = image_bytes(120, 120, seed=3)
    return StyleCard(name=name, picture=embed(image, alt=f"The style image of {name}"), colours=palette(image))


def _details() -> Details:
    return Details(
        facts={"SHA-256": DIGEST, "manifest": f"{LOCATION}manifests/{DIGEST[:16]}", "model": f"1, SHA-256 {DIGEST}"},
        config={"input": LOCATION + KEYS[0], "content_layers": ["relu2_2", "relu3_3"], "learning_rate": 0.002},
    )


def _training() -> TrainingReport:
    steps = np.arange(120)
    loss = 4.0 * np.exp(-steps / 30.0) + 0.5
    names = ("loss", "content_loss", "style_loss", "tv_loss", "grid_loss", "lattice_loss", "teacher_loss")
    columns = {name: loss / (number + 1) for number, name in enumerate(names)}
    rates = {"learning_rate": loss * 1e-3, "images_per_s": 5 + loss, "data_wait_s": loss * 1e-3, "gradient_norm": loss}
    peak = np.full(120, 1.8e9)
    return TrainingReport(
        style=_style(),
        metrics=pa.table({"step": steps, **columns, **rates, "peak_memory_bytes": peak}),
        samples=[(f"step {step}", _picture(180, 360)) for step in (40, 80, 120)],
        num_samples=5,
        events=[f"resumed at step 100: worker 1 of 2 was lost with {LOCATION}checkpoints/step-000000100/"],
        details=_details(),
    )


def _bulk() -> BulkReport:
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    rows: list[dict[str, Any]] = []
    for number in range(60):
        style, status = STYLES[number % 3], "ok" if number < 50 else "failed" if number < 56 else "skipped"
        key = KEYS[0].replace("front", f"front_{number}") if status == "ok" else KEYS[1 + (status == "skipped")]
        row = {
            "key": key, "source_uri": LOCATION + key, "status": status, "style": style, "style_version": "1",
            "model_sha256": DIGEST, "fingerprint": DIGEST, "run_id": "r", "attempt": 1,
            "finished_at": start + dt.timedelta(seconds=number),
        }  # fmt: skip
        if status == "ok":
            row |= {"source_bytes": 4_500_000, "output_bytes": 7_400_000, "output_uri": "s3://o/" + key}
            row |= {"width_px": 200, "height_px": 100, "decode_ms": 2.0, "stylize_ms": 30.0, "encode_ms": 4.0}
        else:
            row |= {"error_type": "UnsupportedFormat", "error": f"the data end early: {LOCATION}{key} ({DIGEST})"}
        rows.append(row)
    places = {"Photograph": "https://images.example/" + KEYS[0], "Painting": "/library/painted/" + KEYS[0]}
    pairs = [
        Pair(name=name, before=_picture(), after=_picture(), note="300 × 200 px, JPEG", style=style, locations=places)
        for name in KEYS[:2]
        for style in STYLES[:2]
    ]
    table = make_table(rows, MANIFEST_SCHEMA)
    styles = [_style(name) for name in STYLES]
    return BulkReport(run_id=DIGEST[:16], summary=summarize(table), styles=styles, pairs=pairs, details=_details())


def _evaluation() -> EvaluationReport:
    rows = measured(OLD, [1.23] * 4) + measured(NEW, [1.11] * 4)
    failed = {"status": "failed", "error_type": "Truncated", "error": f"{LOCATION}{KEYS[0]} ends early", "key": KEYS[0]}
    layers = {"style_loss_by_layer": [0.1, 0.02, 0.3, 0.4, 0.5, 0.6]}
    series = [
        {"palette": [50.0, number, 3.0], "source_palette": [60.0, 2.0 * number, 1.0]}
        | {"strokes": [1.0, 2.0, number, 4.0], "source_strokes": [1.0, 3.0, 0.5 * number, 2.0]}
        for number in range(len(rows))
    ]
    table = table_of(
        [row | layers | properties for row, properties in zip(rows, series, strict=True)], [rows[0] | failed]
    )
    yardstick = YardstickResult(
        model=OLD, num_images=4, network_loss=0.9, network_s=0.4, iterations=200, losses_at=(1.2, 1.0),
        seconds_at=(3.0, 30.0), equal_iterations=71, times_faster=75.0,
    )  # fmt: skip
    results = [(model, _picture(), "loss 0.304: content 0.142, style 0.133") for model in (OLD, NEW)]
    return EvaluationReport(
        style=_style(),
        models=[OLD, NEW],
        num_images=4,
        table=table,
        judge="the loss network vgg16 with weights 1 for content, 1 for style; shorter side 256 px",
        pictures=[SideBySide(key=KEYS[0], source=_picture(), results=results)],
        yardstick=[yardstick],
        reported_iterations=[10, 100],
        details=_details(),
    )


def _optimization() -> OptimizationReport:
    curve = np.exp(-np.arange(60) / 20) + 0.3
    name = KEYS[0].rpartition("/")[2]
    return OptimizationReport(
        name=name, style=_style(), source=_picture(), result=_picture(), losses=curve, seconds=44.0, details=_details()
    )


def _compared() -> pa.Table:
    old, new = losses(40)
    return table_of(measured(OLD, old), measured(NEW, new))


def _comparison() -> str:
    vote = {"voter": "ann", "model_a": OLD, "model_b": NEW, "preferred": NEW}
    votes = [{**vote, "key": f"{number:03d}.jpg"} for number in range(12)]
    rule = Rule(metric=("total_loss", "structural_similarity"))
    table = _compared()
    ranked = [RankedModel(model=name, strength=0.2, interval=(-0.1, 0.5), probability_best=0.9) for name in (NEW, OLD)]
    ranking = Ranking(
        models=tuple(ranked), was_regularized=True, num_votes=12, num_voters=1, agreement=None, kappa=None
    )
    return render_comparison_report(compare(table, champion=OLD, candidate=NEW, rule=rule, votes=votes), ranking)


def _retraining() -> RetrainingReport:
    config = RetrainConfig(style_image="s.jpg", content=("c",), out="o", holdout="h", minimal_effect=0.1)
    verdict = decide(_compared(), OLD, NEW, config)
    evidence = {name: getattr(verdict.evidence, name) for name in verdict.evidence.__dataclass_fields__}
    pictures = [(what, _picture()) for what in ("source", "champion before, loss 1.23", "candidate, loss 1.19")]
    card = DecisionCard(
        firing="2026-11-08T03-00-00Z",
        decision="kept",
        champion=OLD[16:],
        candidate=NEW[16:],
        previous_champion=OLD[16:],
        reason=verdict.reason,
        decided_at="2026-11-08T03:12:00Z",
        evidence=evidence,
        comparisons=[ImageComparison(key=KEYS[0], pictures=pictures)],
    )
    return RetrainingReport(
        style=_style(), champion=OLD[16:], decisions=[card], num_decisions=31, registry=LOCATION + "registry"
    )
