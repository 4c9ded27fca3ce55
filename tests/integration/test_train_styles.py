"""Training one network of several styles, and adding styles to it, on Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stylemill.errors import ConfigError
from stylemill.storage import Storage
from stylemill.style_choice import load_styles
from stylemill.style_file import OWN_PARTS, split_styles
from stylemill.training.checkpoint import Checkpoints
from stylemill.training.config import TrainConfig
from stylemill.training.preflight import prepare
from tests.drawn import image_bytes
from tests.integration.test_train import SMALL
from tests.training_runs import rows_of

pytestmark = pytest.mark.usefixtures("local_ray")
Train = Callable[..., Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "content").mkdir()
    for seed, name in enumerate(("wave", "ink", "gold")):
        (folder / f"{name}.png").write_bytes(image_bytes(80, 90 + 10 * seed, seed=50 + seed, format="PNG"))
    for seed in range(8):
        (folder / "content" / f"{seed}.jpg").write_bytes(image_bytes(90 + 8 * seed, 130, seed=seed))
    return folder


@pytest.fixture(scope="module")
def train(pictures: Path) -> Train:
    def run(out: object, *styles: str, on_progress: Any = None, stop: Any = None, **changes: Any) -> Any:
        from stylemill.training.train import train as train_prepared

        images = tuple(str(pictures / f"{style}.png") for style in styles)
        fields = {"style_image": images, "content": (str(pictures / "content"),), "out": str(out)}
        return train_prepared(prepare(TrainConfig(**(fields | SMALL | changes))), on_progress, stop=stop)

    return run


@pytest.fixture(scope="module")
def pair(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one network over two styles."""
    out = tmp_path_factory.mktemp("pair") / "out"
    assert [header.name for header in train(out, "wave", "ink").headers] == ["wave", "ink"]
    return out / "style.safetensors"


def last_tensors(out: Path) -> dict[str, Any]:
    newest = Checkpoints(Storage(), f"{out}/checkpoints").newest()
    assert newest is not None
    return newest.tensors


def test_one_network_learns_two_styles(pair: Path, train: Train):
    wave, ink = load_styles(Storage(), [str(pair)])
    assert wave.metadata["samples_seen"] == 48 and wave.metadata["trained_together"] == ["wave", "ink"]
    for key, tensor in wave.state_dict.items():
        assert tensor.equal(ink.state_dict[key]) == (OWN_PARTS not in key), key
    with Image.open(pair.parent / "samples" / "step-000012.jpg") as grid:
        assert grid.size == (4 * 64, 3 * 64)
    again = train(pair.parent, "wave", "ink")
    assert again.already_finished and [header.name for header in again.headers] == ["wave", "ink"]
    with pytest.raises(ConfigError, match="style_image"):
        train(pair.parent, "ink", "wave")


def test_a_stopped_run_of_several_styles_resumes_to_the_very_same_weights(pair: Path, train: Train, tmp_path: Path):
    stop = threading.Event()
    stop.set()
    stopped = train(tmp_path / "out", "wave", "ink", stop=stop)
    assert not stopped.headers and stopped.progress.step < 12
    assert train(tmp_path / "out", "wave", "ink").headers
    one, other = last_tensors(pair.parent), last_tensors(tmp_path / "out")
    assert one.keys() == other.keys() and all(tensor.equal(other[key]) for key, tensor in one.items())


def test_two_workers_follow_the_curve_of_one(pair: Path, train: Train, tmp_path: Path):
    train(tmp_path / "out", "wave", "ink", num_workers="2")
    pairs = list(zip(rows_of(pair.parent), rows_of(tmp_path / "out"), strict=True))
    for one, two in pairs[:4]:  # then the rounding of sums in another order shows
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert pairs[-1][1]["loss"] == pytest.approx(pairs[-1][0]["loss"], rel=0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_network_learns_photographs_as_they_are_too(train: Train, tmp_path: Path, workers: str):
    out = tmp_path / "out"
    result = train(out, "wave", with_photo=True, num_workers=workers)
    assert [header.name for header in result.headers] == ["wave", "photo"]
    assert all(row["photo_loss"] >= 0 for row in rows_of(out)) and any(row["photo_loss"] for row in rows_of(out))
    assert [model.name for model in load_styles(Storage(), [f"{out}/style.safetensors"])] == ["wave"]
    (photo,) = load_styles(Storage(), [f"{out}/style.safetensors"], styles=["photo"])
    assert photo.metadata["paints_photographs"] is True and "style_image_sha256" not in photo.metadata
    assert train(out, "wave", with_photo=True, num_workers=workers).already_finished
    with pytest.raises(ConfigError, match="with_photo"):
        train(out, "wave", "ink", num_workers=workers)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_style_is_added_and_the_others_stay_as_they_are(pair: Path, train: Train, tmp_path: Path, workers: str):
    result = train(tmp_path / "out", "gold", add_to=str(pair), num_workers=workers)
    assert [header.name for header in result.headers] == ["gold"]
    before = split_styles(pair.read_bytes(), source="pair")
    after = split_styles((tmp_path / "out" / "style.safetensors").read_bytes(), source="three")
    assert after[:2] == before
    wave, _, gold = load_styles(Storage(), [str(tmp_path / "out" / "style.safetensors")])
    for key, tensor in wave.state_dict.items():
        assert tensor.equal(gold.state_dict[key]) == (OWN_PARTS not in key), key
    assert train(tmp_path / "out", "gold", add_to=str(pair), num_workers=workers).already_finished
    with pytest.raises(ConfigError, match=r"is a style of .* already"):
        train(tmp_path / "again", "gold", add_to=str(tmp_path / "out" / "style.safetensors"))
