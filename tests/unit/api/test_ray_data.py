"""``stylemill.Stylizer`` on batches as Ray Data makes them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from stylemill.api.ray_data import Stylizer
from stylemill.cli.main import main
from stylemill.errors import ConfigError
from stylemill.storage import Storage
from stylemill.style_model import save_style_model
from tests.drawn import drawn_image, image_bytes, style_model

FILES = [image_bytes(40, 60, seed, kind) for seed, kind in enumerate(("JPEG", "PNG", "WEBP", "JPEG"))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        save_style_model(Storage(), str(folder / name), style_model(name, seed))
    return [str(folder / "one"), str(folder / "two")]


def files(*contents: bytes) -> dict[str, np.ndarray]:
    """Return a batch of files, as ``ray.data.read_binary_files`` makes them."""
    column = np.empty(len(contents), dtype=object)
    column[:] = contents
    return {"bytes": column}


def test_a_file_becomes_the_file_that_the_command_writes(models: list[str], tmp_path: Path):
    batch = Stylizer(models[0], column="bytes", strength=0.7, quality=81)(files(*FILES))
    for index, data in enumerate(FILES):
        (tmp_path / "photo").write_bytes(data)
        out = ["--out", str(tmp_path / "out"), "--replace", "--strength", "0.7", "--quality", "81"]
        assert main(["paint", str(tmp_path / "photo"), "--model", models[0], *out]) == 0
        (written,) = (tmp_path / "out").iterdir()
        assert batch["painted"][index] == written.read_bytes()
        written.unlink()
    assert list(batch["style"]) == ["one"] * 4
    assert list(batch["error"]) == [None] * 4


def test_arrays_of_one_size_become_one_array(models: list[str]):
    images_NHWC = np.stack([drawn_image(24, 36, seed) for seed in range(3)])
    batch = Stylizer(models[0])({"image": images_NHWC, "label": np.arange(3)})
    assert batch["painted"].shape == images_NHWC.shape
    assert batch["painted"].dtype == np.uint8
    assert (batch["painted"] != images_NHWC).any()
    assert list(batch["label"]) == [0, 1, 2]


def test_strength_zero_returns_the_arrays(models: list[str]):
    images_NHWC = np.stack([drawn_image(24, 36, seed) for seed in range(2)])
    assert (Stylizer(models[0], strength=0.0)({"image": images_NHWC})["painted"] == images_NHWC).all()


def test_the_style_of_an_image_depends_on_the_image_alone(models: list[str]):
    many = [image_bytes(16, 16, seed) for seed in range(12)]
    whole = Stylizer(models, column="bytes")(files(*many))
    turned = Stylizer(models, column="bytes")(files(*reversed(many)))
    assert set(whole["style"]) == {"one", "two"}
    assert list(turned["style"])[::-1] == list(whole["style"])
    assert list(turned["painted"])[::-1] == list(whole["painted"])
    assert list(Stylizer(models, column="bytes", seed=1)(files(*many))["style"]) != list(whole["style"])


def test_a_file_that_cannot_be_painted_is_a_row_with_its_reason(models: list[str]):
    batch = Stylizer(models[0], column="bytes")(files(FILES[0], image_bytes(200, 200)[:1500], b"Shot on a Sunday."))
    assert [one is None for one in batch["painted"]] == [False, True, True]
    assert batch["error"][1].startswith("Truncated")
    assert batch["error"][0] is None


def test_it_travels_to_workers(models: list[str]):
    stylizer = Stylizer(models[0], column="bytes")
    again = pickle.loads(pickle.dumps(stylizer))  # noqa: S301 (its own bytes)
    assert again(files(FILES[0]))["painted"][0] == stylizer(files(FILES[0]))["painted"][0]


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"strength": 2}, "strength"), ({"strenght": 1}, "strenght"), ({"format": "tga"}, "format")],
)
def test_a_wrong_setting_is_refused_at_once(models: list[str], settings: dict[str, object], field: str):
    with pytest.raises(ConfigError) as refusal:
        Stylizer(models[0], **settings)
    assert refusal.value.field == field


@pytest.mark.parametrize("column", ["image", "label", "real"])
def test_a_column_without_images_is_refused(models: list[str], column: str):
    batch = {"bytes": files(FILES[0])["bytes"], "label": np.arange(1), "real": np.zeros((1, 8, 8, 3))}
    with pytest.raises(ConfigError, match="column"):
        Stylizer(models[0], column=column)(batch)


def test_a_missing_model_is_refused_by_the_first_batch(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        Stylizer(str(tmp_path / "none"), column="bytes")(files(FILES[0]))


def test_gray_and_transparent_images_are_painted_and_what_is_no_image_is_a_row(models: list[str]):
    column = np.empty(5, dtype=object)
    rgba = np.dstack([drawn_image(20, 30), np.full((20, 30), 128, np.uint8)])
    column[:] = [drawn_image(20, 30)[..., 0], rgba, None, np.zeros((3, 4, 5), np.uint8), np.zeros((0, 9, 3), np.uint8)]
    batch = Stylizer(models[0])({"image": column})
    assert [getattr(one, "shape", None) for one in batch["painted"]] == [(20, 30, 3), (20, 30, 4), None, None, None]
    assert [str(error).partition(":")[0] for error in batch["error"]] == [
        *["None"] * 2,
        "Missing",
        *["UnsupportedFormat"] * 2,
    ]


@pytest.mark.parametrize("taken", ["painted", "style", "error"])
def test_a_column_of_the_user_is_not_replaced(models: list[str], taken: str):
    with pytest.raises(ConfigError, match="already"):
        Stylizer(models[0], column="bytes")({**files(FILES[0]), taken: np.arange(1)})
