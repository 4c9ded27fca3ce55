from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stylemill.errors import ConfigError
from stylemill.evaluation.config import EvaluateConfig, JudgeConfig
from stylemill.evaluation.image_metrics import checkerboard, color_shift, structural_similarity
from stylemill.evaluation.judge import Judge, to_batch
from stylemill.evaluation.measure import evaluate, paint, prepare
from stylemill.evaluation.optimize import measure_yardstick
from stylemill.evaluation.reporting import write_evaluation_page
from stylemill.nn.fast_net import FastNet
from stylemill.nn.losses import perceptual_loss
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from tests.drawn import drawn_image, image_bytes, style_model


def _config(tmp_path: Path, style_image: Path, models: tuple[Path, ...], **changes: object) -> EvaluateConfig:
    content = tmp_path / "content"
    for number in range(3):
        path = content / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(90, 120, seed=number))
    return EvaluateConfig(
        model=tuple(map(str, models)),
        content=str(content),
        out=str(tmp_path / "out"),
        judge=JudgeConfig(style_image=str(style_image), style_size_px=96),
        size_px=80,
        **changes,  # type: ignore[arg-type]
    )


def test_every_image_is_a_row_for_every_model_and_bad_ones_say_why(
    tmp_path: Path, style_image: Path, style_file: Path, second_style_file: Path
):
    config = _config(tmp_path, style_image, (style_file, second_style_file))
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
        assert row["total_loss"] > 0 and len(row["style_loss_by_layer"]) == 5
        assert Path(row["picture_uri"]).is_file() and Path(row["source_picture_uri"]).is_file()
        assert row["style_loss"] == pytest.approx(np.mean(row["style_loss_by_layer"]))
    text = Path(page).read_text()
    assert "dunes-1" in text and "tiny.png" in text and "data:image/webp" in text


def test_the_yardstick_stands_on_the_page(tmp_path: Path, style_image: Path, style_file: Path):
    config = _config(tmp_path, style_image, (style_file,), yardstick_images=1, yardstick_iterations=50)
    storage, config = Storage(), replace(config, size_px=64, num_images=2)
    prepared = prepare(storage, config)
    table = evaluate(storage, prepared)
    (reading,) = measure_yardstick(storage, prepared, table, lambda text: None)
    assert reading.num_images == 1 and len(reading.mark_losses) == 1
    assert reading.mark_losses[0] < reading.network_loss  # a network of random weights is no match
    assert reading.equal_iterations == 0 and "no better than the images themselves" in reading.sentence
    text = Path(write_evaluation_page(storage, prepared, table, [reading])).read_text()
    assert reading.sentence in text and "50 iterations" in text


def test_a_model_that_gives_nan_is_named_and_no_table_is_written(tmp_path: Path, style_image: Path):
    model = style_model("broken")
    weights = {key: value.clone() for key, value in model.state_dict.items()}
    first = next(iter(weights))
    weights[first] = torch.full_like(weights[first], 1e38)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(to_bytes(replace(model, state_dict=weights)))
    prepared = prepare(Storage(), _config(tmp_path, style_image, (broken,), precision="float32"))
    with pytest.raises(ConfigError, match=r"broken-1.*not finite \(NaN\)"):
        evaluate(Storage(), prepared)
    assert not (tmp_path / "out/evaluation.parquet").exists()


def test_the_measured_picture_is_the_one_that_stylize_paints():
    net = FastNet(style_model().build_network(), precision="float32")
    source_HWC = drawn_image(70, 93)
    painted_HWC, seconds = paint(net, source_HWC, uri="x", key="k")
    assert np.array_equal(painted_HWC, net.stylize(source_HWC)) and seconds > 0


def test_the_losses_are_those_of_training(judge: Judge):
    result_HWC, source_HWC = drawn_image(80, 96, 1), drawn_image(80, 96, 2)
    found = judge.losses(result_HWC, source_HWC)
    wanted = perceptual_loss(judge.network, to_batch(result_HWC), to_batch(source_HWC), judge.target, judge.weights)
    assert found.total == pytest.approx(float(wanted.total), rel=1e-5)
    assert found.style == pytest.approx(float(wanted.style), rel=1e-5)
    assert judge.losses(judge.style_HWC, judge.style_HWC).style == pytest.approx(0, abs=1e-9)
    assert judge.losses(source_HWC, source_HWC).content == 0


def test_colour_structure_and_grid_tell_what_they_are_named_for():
    source_HWC = drawn_image(96, 96)
    assert color_shift(source_HWC, source_HWC) == 0 and structural_similarity(source_HWC, source_HWC) == 1
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert color_shift(white, black) == pytest.approx(100, abs=0.01)  # lightness runs from 0 to 100
    noisy_HWC = np.clip(source_HWC + np.random.default_rng(0).normal(0, 60, source_HWC.shape), 0, 255).astype(np.uint8)
    assert structural_similarity(noisy_HWC, source_HWC) < 0.8
    lined_HWC = source_HWC.copy()
    lined_HWC[:, ::2] = np.clip(lined_HWC[:, ::2].astype(int) + 25, 0, 255)
    assert checkerboard(lined_HWC, source_HWC) > 10 * checkerboard(source_HWC, source_HWC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": "nowhere"}, "content='nowhere': holds no images"),
        ({"judge": JudgeConfig(style_image="none.png")}, "style_image='none.png': does not exist"),
        ({"judge": JudgeConfig()}, "style_image=None: is not named by the first model; give the style's image"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    tmp_path: Path, style_image: Path, style_file: Path, change: dict, message: str
):
    config = replace(_config(tmp_path, style_image, (style_file,)), **change)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        prepare(Storage(), config)


def test_the_same_model_twice_is_refused(tmp_path: Path, style_image: Path, style_file: Path):
    with pytest.raises(ConfigError, match="the same model as one before it"):
        prepare(Storage(), _config(tmp_path, style_image, (style_file, style_file)))


def test_a_strangers_model_writes_nothing_outside_the_output(tmp_path: Path, style_image: Path):
    stranger = tmp_path / "stranger.safetensors"
    stranger.write_bytes(to_bytes(replace(style_model(), version="/../../../elsewhere")))
    with pytest.raises(ConfigError, match="cannot name a folder"):
        evaluate(Storage(), prepare(Storage(), _config(tmp_path, style_image, (stranger,))))
    assert not (tmp_path / "elsewhere").exists()
