"""The styles that come with stylemill."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylemill.builtin import LOCATION, NAMES, SHA256, builtin_file, is_builtin, model_location, models_or_builtin
from stylemill.cli.builtin_networks import halve
from stylemill.cli.main import main
from stylemill.demo.drawn_styles import STYLES
from stylemill.errors import ConfigError
from stylemill.painting.config import PaintConfig
from stylemill.storage import Storage
from stylemill.style_choice import load_styles
from stylemill.style_file import PHOTO, load_style_headers, merge_styles
from stylemill.style_model import StyleModel, to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.submission.request import resolve_locations
from stylemill.training.config import TrainConfig
from stylemill.training.start_models import read_start
from tests.drawn import image_bytes, style_model

MAX_BYTES = 3_000_000


def test_the_file_is_the_recorded_one_and_has_all_styles_with_their_pictures():
    data = builtin_file()
    assert hashlib.sha256(data).hexdigest() == SHA256 and len(data) <= MAX_BYTES
    headers = load_style_headers(Storage(), model_location(LOCATION))
    assert tuple(header.name for header in headers) == (*NAMES, PHOTO) and len(NAMES) >= 8
    for header in headers[:-1]:
        assert header.picture is not None
        with Image.open(io.BytesIO(header.picture)) as picture:
            assert picture.size == (192, 192)
    assert {tensor.dtype for tensor in StyleModel.load("builtin#ink").state_dict.values()} == {torch.float16}


def test_every_drawn_style_is_among_them():
    assert NAMES == STYLES


def test_the_style_photo_paints_photographs_more_or_less_as_they_are():
    data = pytest.importorskip("skimage.data")
    photo_HWC = np.asarray(Image.fromarray(data.coffee()).resize((300, 200)))
    distances = {
        name: np.abs(StyleModel.load(f"builtin#{name}").paint(photo_HWC).astype(float) - photo_HWC).mean()
        for name in (PHOTO, *NAMES)
    }
    assert distances[PHOTO] < 0.6 * min(distances[name] for name in NAMES)


def test_a_style_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(image_bytes(40, 60))
    assert main(["paint", "a.jpg", "--style", "ink", "--style", "wash:0.7,photo:0.3"]) == 0
    assert (tmp_path / "a-ink.jpg").is_file() and (tmp_path / "a-wash-0.7-photo-0.3.jpg").is_file()
    assert PaintConfig(photo=("a.jpg",), style=("ink",)).model == ("builtin",)
    assert StylizeConfig(style=("ink",), input="in", out="out").model == ("builtin",)
    assert StylizeConfig(model=("m",), style=("ink",), input="in", out="out").model == ("m",)


def test_without_a_model_or_a_style_the_error_lists_the_styles():
    for make in (lambda: PaintConfig(photo=("a.jpg",)), lambda: StylizeConfig(input="in", out="out")):
        with pytest.raises(ConfigError, match=r"--model is required; give it, or --style .*night-fields.*ink"):
            make()
    assert models_or_builtin(("m",), ()) == ("m",)


def test_all_are_painted_without_the_photographs_themselves():
    assert [model.name for model in load_styles(Storage(), ["builtin"])] == list(NAMES)
    with pytest.raises(ConfigError, match=r"there are night-fields, .*, photo"):
        load_styles(Storage(), ["builtin"], None, ["wave"])


@pytest.mark.parametrize(
    ("uri", "expected"), [("builtin", True), ("builtin#ink", True), ("./builtin", False), ("builtin/a", False)]
)
def test_files_of_that_name_are_reached_by_their_path(uri: str, expected: bool):
    assert is_builtin(uri) is expected
    assert model_location(uri).startswith(str(Path.cwd())) is not expected or "stylemill/builtin" in model_location(uri)


def test_they_are_on_every_machine_of_a_cluster_and_nothing_else_called_so():
    config = StylizeConfig(model=("builtin#ink",), input="s3://b/in", out="s3://b/out")
    assert resolve_locations(config, ["model", "input", "out"], shared_filesystem=False).model == ("builtin#ink",)
    with pytest.raises(ConfigError, match="is a path of this machine"):
        resolve_locations(
            StylizeConfig(style=("ink",), input="builtin", out="s3://b/o"), ["input"], shared_filesystem=False
        )


def test_they_are_starts_and_what_further_styles_are_added_to():
    fields = {"style_image": "a.png", "content": ("c",), "out": "o"}
    start, _ = read_start(Storage(), TrainConfig(**fields, start="builtin#ink"))
    assert start == to_bytes(StyleModel.load("builtin#ink"))
    base, _ = read_start(Storage(), TrainConfig(**fields, add_to="builtin"))
    assert base == builtin_file()
    for more, cure in (({"name": "ink"}, "another --name"), ({"with_photo": True}, "leave --with-photo out")):
        with pytest.raises(ConfigError, match=cure):
            read_start(Storage(), TrainConfig(**fields, add_to="builtin", **more))


def test_they_are_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = builtin_file()
    assert main(["models", "drop", "builtin", "--style", "ink"]) == 2
    assert "what comes with stylemill is not replaced" in capsys.readouterr().err
    assert main(["models", "drop", "builtin", "--style", "ink", "--out", "fewer.safetensors"]) == 0
    assert "ink" not in [header.name for header in load_style_headers(Storage(), str(tmp_path / "fewer.safetensors"))]
    assert builtin_file() == before


def test_halving_keeps_names_pictures_and_little_else(tmp_path: Path):
    models = [style_model(name) for name in ("wave", "ink")]
    models = [
        StyleModel(
            name=model.name, version=model.version, architecture=model.architecture, state_dict=models[0].state_dict,
            metadata={"steps": 7, "picture": "aa==", "config": {"content": ["/secret"]}},
        )
        for model in models
    ]  # fmt: skip
    (tmp_path / "m.safetensors").write_bytes(merge_styles({model.name: to_bytes(model) for model in models}))
    halve(tmp_path / "m.safetensors", tmp_path / "half.safetensors", keep=("steps", "picture"))
    halved = load_styles(Storage(), [str(tmp_path / "half.safetensors")])
    assert [model.name for model in halved] == ["wave", "ink"]
    for model in halved:
        assert model.metadata == {"steps": 7, "picture": "aa=="}
        assert {tensor.dtype for tensor in model.state_dict.values()} == {torch.float16}
