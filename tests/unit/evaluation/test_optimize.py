"""Direct optimisation of pixels, and the yardstick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylemill.cli.main import main
from stylemill.errors import ConfigError
from stylemill.evaluation.judge import Judge
from stylemill.evaluation.measure import evaluate, prepare
from stylemill.evaluation.optimize import (
    REPORTED_ITERATIONS,
    Optimization,
    compare_with_runs,
    measure_yardstick,
    optimize_pixels,
)
from stylemill.evaluation.reporting import write_evaluation_page
from stylemill.storage import Storage
from tests.drawn import drawn_image, image_bytes
from tests.unit.evaluation.conftest import evaluation_config

SOURCE = drawn_image(64, 64, seed=3)


@pytest.fixture(scope="module")
def lbfgs_run(judge: Judge) -> Optimization:
    """Return 25 iterations of L-BFGS from the content image."""
    return optimize_pixels(judge, SOURCE, iterations=25, snapshots=(5,))


def check_run(judge: Judge, found: Optimization, iterations: int) -> None:
    assert found.losses[12] < 0.9 * found.losses[0]
    assert found.losses[-1] == pytest.approx(judge.losses(found.result_HWC, SOURCE).total)
    assert len(found.losses) == len(found.seconds) == iterations + 1 and (np.diff(found.seconds) > 0).all()
    assert found.snapshots.keys() == {5} and found.snapshots[5].shape == SOURCE.shape


@pytest.mark.parametrize(("optimizer", "start"), [("lbfgs", "noise"), ("adam", "noise"), ("sgd", "content")])
def test_every_optimizer_lowers_the_loss_from_every_start(judge: Judge, optimizer: str, start: str):
    found = optimize_pixels(judge, SOURCE, iterations=12, optimizer=optimizer, start=start, snapshots=(5,))  # type: ignore[arg-type]
    check_run(judge, found, 12)


def test_lbfgs_lowers_the_loss_of_the_content_image_and_never_jumps_back(judge: Judge, lbfgs_run: Optimization):
    """Without a line search, or with pixels changed outside it, it loses its gains every few iterations."""
    check_run(judge, lbfgs_run, 25)
    assert np.diff(lbfgs_run.losses).max() < 0.01 * lbfgs_run.losses[0]


def test_the_diagonal_lowers_its_own_term_and_leaves_the_rest_of_the_gram_alone(judge: Judge, lbfgs_run: Optimization):
    diagonal = optimize_pixels(judge, SOURCE, iterations=15, gram="diagonal")
    assert lbfgs_run.losses[15] < diagonal.losses[-1] < diagonal.losses[0]


def test_a_rate_that_is_too_high_is_the_users_mistake(judge: Judge):
    with pytest.raises(ConfigError, match=r"learning_rate=.*write a smaller one"):
        optimize_pixels(judge, SOURCE, iterations=5, optimizer="sgd", learning_rate=float("1e38"))


def _curve(losses: np.ndarray) -> Optimization:
    return Optimization(result_HWC=SOURCE, losses=losses, seconds=np.arange(len(losses)) * 0.1, snapshots={})


def test_the_yardstick_reads_the_first_iteration_that_is_as_good():
    falling = _curve(np.linspace(5.0, 0.0, REPORTED_ITERATIONS[-1] + 1))  # 0.01 less at each iteration
    result = compare_with_runs("m", [{"total_loss": 3.995, "seconds": 0.05}], [falling])
    assert result.equal_iterations == 101 and result.times_faster == pytest.approx(10.1 / 0.05)
    assert result.losses_at == pytest.approx((4.5, 4.0, 2.0, 0.0))
    better = compare_with_runs("m", [{"total_loss": -1.0, "seconds": 0.05}], [falling])
    assert better.equal_iterations is None and better.times_faster == pytest.approx(50 / 0.05)
    assert "better than 500 iterations" in better.sentence


def test_the_yardstick_is_on_the_page(tmp_path: Path, style_image: Path, style_file: Path):
    changes = {"yardstick_images": 1, "yardstick_iterations": 50, "num_images": 2}
    config = evaluation_config(tmp_path, style_image, (style_file,), image_px=(64, 64), **changes)
    storage = Storage()
    prepared = prepare(storage, config)
    table = evaluate(storage, prepared)
    (result,) = measure_yardstick(storage, prepared, table, lambda text: None)
    assert result.num_images == 1 and len(result.losses_at) == 1
    assert result.losses_at[0] < result.network_loss  # a network of random weights is no match
    assert result.equal_iterations == 0 and "no better than the images themselves" in result.sentence
    text = Path(write_evaluation_page(storage, prepared, table, [result])).read_text()
    assert result.sentence in text and "50 iterations" in text


def test_the_verb_paints_one_picture(tmp_path: Path, style_image: Path, capsys: pytest.CaptureFixture[str]):
    content = tmp_path / "content.jpg"
    content.write_bytes(image_bytes(70, 90))
    asked = ["--content", str(content), "--out", str(tmp_path / "out"), "--style-size-px", "96", "--size-px", "64"]
    assert main(["optimize", *asked]) == 2
    assert "give --style-image" in capsys.readouterr().err
    assert main(["optimize", *asked, "--style-image", str(style_image), "--iterations", "6"]) == 0
    assert Image.open(tmp_path / "out/result.png").size == (82, 64)
    curve = pq.read_table(tmp_path / "out/curve.parquet")
    assert curve["loss"][-1].as_py() < curve["loss"][0].as_py() and curve.num_rows == 7
    assert "painted by optimisation" in (tmp_path / "out/report/index.html").read_text()
    (tmp_path / "notes.jpg").write_text("no picture")
    bad = ["--content", str(tmp_path / "notes.jpg"), "--out", str(tmp_path / "o"), "--style-image", str(style_image)]
    assert main(["optimize", *bad]) == 2
    assert "cannot be painted" in capsys.readouterr().err
