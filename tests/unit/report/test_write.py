"""Reports are read back from the files of a run, so these tests write such files."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import ConfigError
from stylemill.manifest.commit import Success, committed_part, write_success
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import SCHEMA_VERSION, to_parquet
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.report.write import (
    bulk_report,
    load_bulk_report,
    load_training_report,
    training_report,
    write_bulk_report,
    write_training_report,
)
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, save_style_model


@pytest.fixture
def style(tmp_path, encoded):
    """Return (location of the style image, model that was trained on it)."""
    image = encoded((40, 40))
    (tmp_path / "waves.png").write_bytes(image)
    architecture = Architecture(width=0.1)
    model = StyleModel(
        name="waves",
        version="v1",
        architecture=architecture,
        state_dict=TransformerNet(architecture).state_dict(),
        metadata={
            "config": {"style_image": str(tmp_path / "waves.png")},
            "style_image_sha256": hashlib.sha256(image).hexdigest(),
            "loss_network": "pyramid",
        },
    )
    return tmp_path / "waves.png", model


def test_a_training_run(tmp_path, style, metrics, encoded):
    out, storage = tmp_path / "training", Storage()
    saved = save_style_model(storage, str(out / "style.safetensors"), style[1])
    sink = pa.BufferOutputStream()
    pq.write_table(metrics, sink)
    storage.write_bytes(str(out / "metrics.parquet"), sink.getvalue().to_pybytes())
    storage.write_bytes(str(out / "config.yaml"), b"steps: 60\n")
    for step in (40, 5, 60):
        storage.write_bytes(str(out / "samples" / f"step-{step:06d}.jpg"), encoded())
    storage.write_bytes(str(out / "samples" / "notes.txt"), b"not a sample")
    report = load_training_report(storage, str(out), events=["resumed at step 7"], facts={"machine": "mine"})
    assert report.style.name == "waves"
    assert report.style.picture is not None
    assert [caption for caption, _ in report.samples] == ["step 5", "step 40", "step 60"]
    assert report.num_samples == 3
    assert report.metrics.num_rows == 60
    assert report.details.config == {"steps": 60}
    assert report.details.facts["SHA-256"] == saved.sha256
    assert report.details.facts["machine"] == "mine"


def test_another_picture_in_the_place_of_the_style_image_is_not_shown(tmp_path, style, metrics, encoded):
    out, storage = tmp_path / "training", Storage()
    save_style_model(storage, str(out / "style.safetensors"), style[1])
    sink = pa.BufferOutputStream()
    pq.write_table(metrics, sink)
    storage.write_bytes(str(out / "metrics.parquet"), sink.getvalue().to_pybytes())
    storage.write_bytes(str(out / "config.yaml"), b"steps: 60\n")
    style[0].write_bytes(encoded((41, 41)))
    assert load_training_report(storage, str(out)).style.picture is None
    style[0].unlink()
    assert load_training_report(storage, str(out)).style.picture is None


@pytest.mark.parametrize(
    ("text", "is_shown"), [("", True), ("bm8gcGljdHVyZQ==", False), ("not base64!", False), (7, False)]
)
def test_a_style_image_that_is_gone_is_shown_small_from_the_model(tmp_path, style, metrics, encoded, text, is_shown):
    out, storage = tmp_path / "training", Storage()
    small = text or base64.b64encode(encoded((24, 24))).decode()
    metadata = {**style[1].metadata, "picture": small}
    save_style_model(storage, str(out / "style.safetensors"), replace(style[1], metadata=metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(metrics, sink)
    storage.write_bytes(str(out / "metrics.parquet"), sink.getvalue().to_pybytes())
    storage.write_bytes(str(out / "config.yaml"), b"steps: 60\n")
    style[0].unlink()
    shown = load_training_report(storage, str(out)).style.picture
    assert (shown is not None) == is_shown and (shown is None or shown.width_px == 24)


def test_a_bulk_run(tmp_path, style, manifest_rows, encoded):
    layout, storage = RunLayout(out=str(tmp_path / "out"), run_id="run-1"), Storage()
    save_style_model(storage, layout.model_uri("waves"), style[1])
    storage.write_bytes(layout.config_uri, b"strength: 0.5\n")
    locations = {"source_uri": str(tmp_path / "a.png"), "output_uri": str(tmp_path / "b.png")}
    for location in locations.values():
        storage.write_bytes(location, encoded())
    rows = manifest_rows({"key": "a.png", **locations}, {"status": "failed", "error_type": "Cut", "error": "short"})
    for shard in (0, 1):
        storage.create_bytes(layout.part_uri(shard), to_parquet(rows.slice(shard, 1)))
    with pytest.raises(ConfigError):
        load_bulk_report(storage, layout)
    success = Success(
        run_id="run-1",
        input=str(tmp_path),
        fingerprint="cd" * 32,
        parent_run_id=None,
        schema_version=SCHEMA_VERSION,
        styles=[{"name": "waves", "version": "v1", "model_sha256": "ab" * 32}],
        num_sources=2,
        counts={"ok": 1, "failed": 1},
        parts=[committed_part(storage, layout, shard) for shard in (0, 1)],
        finished_at="2026-03-01T12:00:00+00:00",
    )
    assert write_success(storage, layout, success)
    report = load_bulk_report(storage, layout, facts={"peak memory": "1 GiB"})
    assert report.summary.statuses == {"ok": 1, "failed": 1}
    assert [pair.name for pair in report.pairs] == ["a.png"]
    assert report.styles[0].picture is not None
    assert report.details.config == {"strength": 0.5}
    assert report.details.facts["fingerprint"] == "cd" * 32
    assert report.details.facts["peak memory"] == "1 GiB"
    (pair,) = report.pairs
    assert pair.locations == {"Photograph": locations["source_uri"], "Painting": locations["output_uri"]}
    assert (pair.style, pair.folder) == ("waves", "")
    (trouble,) = report.summary.troubles
    assert trouble.source_uri == "/in/0001.jpg"


def test_a_bulk_page_shows_the_images_that_can_be_read(tmp_path, manifest_rows, encoded, caplog):
    for name in ("in-a.png", "out-a.png", "in-b.png"):
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / "out-b.png").write_bytes(b"not a picture")
    rows = manifest_rows(
        *(
            {
                "key": f"{name}.png",
                "source_uri": f"{tmp_path}/in-{name}.png",
                "output_uri": f"{tmp_path}/out-{name}.png",
            }
            for name in "abc"
        )
    )
    storage = Storage()
    report = bulk_report(storage, run_id="run-1", parts=rows, style_images={"waves": encoded((32, 32))})
    assert [pair.name for pair in report.pairs] == ["a.png"]
    assert "leaves out b.png" in caplog.text
    assert "leaves out c.png" in caplog.text
    assert report.styles[0].picture is not None
    layout = RunLayout(out=str(tmp_path / "out"), run_id="run-1")
    uri = write_bulk_report(storage, layout, report)
    assert uri == layout.report_uri
    page = storage.read_bytes(uri).decode("utf-8")
    assert "3 images repainted" in page


def test_a_training_page_shows_the_first_the_middle_and_the_last_samples(tmp_path, metrics, encoded):
    samples = [(f"step {step}", encoded()) for step in (10, 20, 30, 40, 50)]
    report = training_report(style_name="waves", style_image=b"broken", metrics=metrics, samples=samples)
    assert [caption for caption, _ in report.samples] == ["step 10", "step 30", "step 50"]
    assert report.style.picture is None
    storage = Storage()
    uri = write_training_report(storage, str(tmp_path / "style"), report)
    assert (tmp_path / "style" / "report" / "index.html").read_text("utf-8").startswith("<!doctype html>")
    assert uri.endswith("style/report/index.html")
