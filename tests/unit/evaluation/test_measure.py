"""Evaluations: rows, pages and refused settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stylemill.errors import ConfigError
from stylemill.evaluation.config import JudgeConfig
from stylemill.evaluation.measure import evaluate, paint, prepare
from stylemill.evaluation.reporting import write_evaluation_page
from stylemill.evaluation.schema import read_measurements, write_measurements
from stylemill.nn.fast_net import FastNet
from stylemill.report.evaluation_pages import metric_rows
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from tests.drawn import drawn_image, image_bytes, style_model
from tests.unit.evaluation.conftest import evaluation_config


def test_every_image_has_a_row_for_every_model_and_bad_ones_have_a_reason(
    tmp_path: Path, style_image: Path, style_file: Path, second_style_file: Path
):
    config = evaluation_config(tmp_path, style_image, (style_file, second_style_file))
    (tmp_path / "content" / "cut.jpg").write_bytes(image_bytes(90, 120)[:900])
    (tmp_path / "content" / "notes.txt").write_text("not a picture")
    (tmp_path / "content" / "tiny.png").write_bytes(image_bytes(20, 30, format="PNG"))
    storage = Storage()
    prepared = prepare(storage, config)
    evaluate(storage, prepared)
    page = write_evaluation_page(storage, prepared, pq.read_table(tmp_path / "out/evaluation.parquet"))
    rows = pq.read_table(tmp_path / "out/evaluation.parquet").to_pylist()
    assert [row["model"] for row in rows] == ["waves-1", "dunes-1"] * 6
    assert {row["key"]: row["error_type"] for row in rows if row["status"] != "ok"} == {
        "cut.jpg": "Truncated",
        "notes.txt": "Text",
        "tiny.png": "TooSmall",
    }
    for row in (row for row in rows if row["status"] == "ok"):
        assert row["total_loss"] > 0 and len(row["style_loss_by_layer"]) == 6
        assert Path(row["picture_uri"]).is_file() and Path(row["source_picture_uri"]).is_file()
        assert row["style_loss"] == pytest.approx(np.mean(row["style_loss_by_layer"]))
        assert row["crop_difference"] > 0 and len(row["palette"]) == 3 and len(row["strokes"]) == 4
    text = Path(page).read_text()
    assert "dunes-1" in text and "tiny.png" in text and "data:image/webp" in text and "palette spread" in text


def test_spreads_are_those_of_the_set_relative_to_its_sources(tmp_path: Path, style_image: Path, style_file: Path):
    prepared = prepare(Storage(), evaluation_config(tmp_path, style_image, (style_file,)))
    table = evaluate(Storage(), prepared)
    rows = {row.name: row for row in metric_rows(table)}
    (_, palette_spread, error), *_ = rows["palette spread"].means
    columns = {name: np.array([row[name] for row in table.to_pylist()]) for name in ("palette", "source_palette")}
    spreads = {name: np.sqrt(values.var(axis=0).sum()) for name, values in columns.items()}
    assert palette_spread == pytest.approx(spreads["palette"] / spreads["source_palette"]) and error is None
    alone = metric_rows(table.slice(0, 1))
    assert "palette spread" not in {row.name for row in alone}


def test_a_table_of_an_earlier_version_is_read_without_what_it_did_not_measure(
    tmp_path: Path, style_image: Path, style_file: Path
):
    evaluate(Storage(), prepare(Storage(), evaluation_config(tmp_path, style_image, (style_file,))))
    table = pq.read_table(tmp_path / "out/evaluation.parquet")
    later = ["crop_difference", "palette", "source_palette", "strokes", "source_strokes"]
    write_measurements(Storage(), str(tmp_path / "early"), table.drop_columns(later))
    early = read_measurements(Storage(), str(tmp_path / "early"))
    assert early.schema.names == table.schema.names and early["crop_difference"].null_count == early.num_rows
    names = {row.name for row in metric_rows(early)}
    assert "total loss" in names and not names & {"crop difference", "palette spread", "stroke spread"}
    write_measurements(Storage(), str(tmp_path / "other"), table.drop_columns(["total_loss"]))
    with pytest.raises(ValueError, match="columns differ"):
        read_measurements(Storage(), str(tmp_path / "other"))


def test_a_model_that_returns_nan_is_named_and_no_table_is_written(tmp_path: Path, style_image: Path):
    model = style_model("broken")
    weights = {key: value.clone() for key, value in model.state_dict.items()}
    first = next(iter(weights))
    weights[first] = torch.full_like(weights[first], 1e38)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(to_bytes(replace(model, state_dict=weights)))
    prepared = prepare(Storage(), evaluation_config(tmp_path, style_image, (broken,), precision="float32"))
    with pytest.raises(ConfigError, match=r"broken-1.*not finite \(NaN\)"):
        evaluate(Storage(), prepared)
    assert not (tmp_path / "out/evaluation.parquet").exists()


def test_the_measured_picture_is_the_one_that_stylize_paints():
    net = FastNet(style_model().build_network(), precision="float32")
    source_HWC = drawn_image(70, 93)
    painted_HWC, seconds = paint(net, source_HWC, uri="x", key="k")
    assert np.array_equal(painted_HWC, net.stylize(source_HWC)) and seconds > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": "nowhere"}, "content='nowhere': holds no images"),
        (
            {"judge": JudgeConfig(style_image="none.png", loss_network="pyramid")},
            "style_image='none.png': does not exist",
        ),
        (
            {"judge": JudgeConfig(loss_network="pyramid")},
            "--style-image is not in the metadata of the first model; give it with --style-image",
        ),
    ],
)
def test_mistakes_are_reported_before_anything_is_measured(
    tmp_path: Path, style_image: Path, style_file: Path, change: dict, message: str
):
    config = replace(evaluation_config(tmp_path, style_image, (style_file,)), **change)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        prepare(Storage(), config)


def test_the_same_model_twice_is_refused(tmp_path: Path, style_image: Path, style_file: Path):
    with pytest.raises(ConfigError, match="is given twice"):
        prepare(Storage(), evaluation_config(tmp_path, style_image, (style_file, style_file)))


def test_a_strangers_model_writes_nothing_outside_the_output(tmp_path: Path, style_image: Path):
    stranger = tmp_path / "stranger.safetensors"
    stranger.write_bytes(to_bytes(replace(style_model(), version="/../../../elsewhere")))
    with pytest.raises(ConfigError, match="cannot name a folder"):
        evaluate(Storage(), prepare(Storage(), evaluation_config(tmp_path, style_image, (stranger,))))
    assert not (tmp_path / "elsewhere").exists()
