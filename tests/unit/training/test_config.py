from __future__ import annotations

import subprocess
import sys

import pytest

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.config import from_mapping, parse_yaml, to_yaml
from stylemill.errors import ConfigError
from stylemill.training.config import PRESETS, SETTINGS_THAT_MAY_CHANGE, TrainConfig, settings_of

NEEDED = ("--style-image", "a.jpg", "--content", "photos", "--out", "out")


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"style_image": "a/starry.night.jpg", "content": ("photos",), "out": "out"} | changes)


def test_defaults_are_those_of_the_design():
    made = config()
    assert (made.loss_network, made.width, made.crop_px, made.batch_size, made.steps) == ("vgg16", 0.5, 256, 4, 1000)
    assert made.oversize == 1.5


@pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("4", (4, 4)), ("1:4", (1, 4)), ("2:2", (2, 2))])
def test_number_of_workers(text, expected):
    assert config(num_workers=text).worker_range == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_workers", "0"), ("num_workers", "4:2"), ("num_workers", "1:"), ("num_workers", "many"), ("num_workers", "5"),
     ("steps", 0), ("crop_px", 66), ("crop_px", 28), ("width", 0.0), ("oversize", 0.9), ("learning_rate", 0.0),
     ("learning_rate", float("nan")), ("style_weight", -1.0), ("ema_decay", 1.0), ("max_failed_fraction", 1.5),
     ("style_size_px", 31), ("style_size_px", 10**6), ("crop_px", 10**6), ("seed", -1), ("seed", 2**63),
     ("content_cache", "much"),
     ("least_view", 0.2), ("least_view", 1.1),
     ("content", ()), ("style_image", ""), ("out", ""),
     ("content_layers", "relu9_9=1"), ("style_layers", "relu1_2"), ("style_layers", "relu1_2=0"),
     ("style_layers", "relu1_2=much"), ("style_layers", ""), ("patience", -1)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_field(field, value):
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    assert caught.value.field == field


def test_weights_are_refused_for_the_loss_network_that_has_none():
    with pytest.raises(ConfigError, match=r"loss_weights='vgg16\.pth': is not used by the pyramid"):
        config(loss_network="pyramid", loss_weights="vgg16.pth")


def test_layers_are_those_of_the_loss_network():
    assert dict(config(style_layers="relu1_1=2, relu3_3=0.5").layer_weights.style) == {"relu1_1": 2.0, "relu3_3": 0.5}
    assert dict(config().layer_weights.content) == {"relu2_2": 1.0}
    with pytest.raises(ConfigError, match="there is no layer 'relu2_2', only level0, level1"):
        config(loss_network="pyramid", content_layers="relu2_2=1")
    assert dict(config(style_layers="palette=1,relu2_2=3").layer_weights.style) == {"palette": 1.0, "relu2_2": 3.0}
    with pytest.raises(ConfigError, match="content_layers='palette=1': is not a list of layers"):
        config(content_layers="palette=1")


def test_weights_that_leave_nothing_to_learn_are_refused():
    assert config(style_weight=0.0).content_weight and config(content_weight=0.0).style_weight
    with pytest.raises(ConfigError, match="nothing to learn"):
        config(style_weight=0.0, content_weight=0.0)
    assert config(style_weight=0.0, content_weight=0.0, teacher="a.safetensors").teacher


def test_style_is_named_after_its_image():
    assert config().style_name == "starry.night"
    assert config(style_image="s3://bucket/waves").style_name == "waves"
    assert config(name="mine").style_name == "mine"


def test_fields_that_may_change_exist():
    assert set(SETTINGS_THAT_MAY_CHANGE) <= set(TrainConfig.__dataclass_fields__)


def test_yaml_round_trip():
    made = config(num_workers="1:4", seed=3, learning_rate=1e-3)
    assert from_mapping(TrainConfig, parse_yaml(to_yaml(made), source="test")) == made


def test_neither_torch_nor_ray_is_imported():
    code = "import sys, stylemill.training.config; assert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def printed(capsys: pytest.CaptureFixture[str], *flags: str) -> TrainConfig:
    """Return the config that the command line makes of some flags."""
    assert main(["train", *NEEDED, *flags, "--print-config"]) == DONE
    return from_mapping(TrainConfig, parse_yaml(capsys.readouterr().out, source="test"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_replaces_the_defaults(capsys, name):
    made, plain = printed(capsys, "--preset", name), printed(capsys)
    assert {field: getattr(made, field) for field in PRESETS[name]} == PRESETS[name]
    others = set(TrainConfig.__dataclass_fields__) - set(PRESETS[name])
    assert all(getattr(made, field) == getattr(plain, field) for field in others)
    assert made != plain


def test_file_and_flags_override_a_preset(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("crop-px: 128\nwidth: 0.25\n")
    made = printed(capsys, "--preset", "quick", "--config", str(tmp_path / "mine.yaml"), "--width", "0.75")
    assert (made.crop_px, made.width, made.steps) == (128, 0.75, PRESETS["quick"]["steps"])


def test_an_unknown_preset_is_refused_with_the_known_ones(capsys):
    assert main(["train", *NEEDED, "--preset", "slow"]) == WRONG_USE
    assert (
        capsys.readouterr().err == "stylemill: preset='slow': is not a preset; use one of " + ", ".join(PRESETS) + "\n"
    )


def test_help_names_each_preset_and_its_values(capsys):
    assert main(["train", "--help"]) == DONE
    text = " ".join(capsys.readouterr().out.split())
    for name, values in PRESETS.items():
        assert f"{name} ({', '.join(f'{field} {value}' for field, value in values.items())})" in text


def test_presets_set_no_locations_and_no_resources():
    fields = {field for values in PRESETS.values() for field in values}
    assert not fields & {"style_image", "content", "out", "name", "seed", "num_workers", "device"}
    assert fields & set(SETTINGS_THAT_MAY_CHANGE) <= {"steps", "sample_every"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "x"}, "names one style, and several take the names of their images"),
        ({"style_image": ("a/wave.png", "b/wave.jpg")}, "is the name of two images"),
        ({"style_image": ("a:b.png", "c.png")}, "names have no # : ,"),
        ({"norm": "batch"}, "does not go with several styles"),
        ({"norm": "batch", "style_image": ("a.png",), "with_photo": True}, "does not go with several styles"),
        (
            {"style_image": ("photo.png",), "with_photo": True},
            "style_image='photo': is the name of the style that with_photo adds",
        ),
        (
            {"style_image": ("a.png",), "name": "photo", "with_photo": True},
            "name='photo': is the name of the style that with_photo adds",
        ),
        ({"style_image": ("a/photo.png", "b/photo.jpg")}, "is the name of two images"),
        ({"style_image": ("a.png", "")}, "is empty"),
        ({"add_to": "m.safetensors", "start": "scratch"}, "both say where to start"),
    ],
)
def test_what_does_not_go_with_several_styles(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        TrainConfig(**{"style_image": ("a.png", "b.png"), "content": ("c",), "out": "o"} | fields)


def test_styles_have_the_names_of_their_images():
    assert TrainConfig(style_image=("x/wave.png", "ink.v2.jpg"), content=("c",), out="o").style_names == (
        "wave",
        "ink.v2",
    )
    one = TrainConfig(style_image="x/wave.png", content=("c",), out="o", name="sea")
    assert (one.style_names, one.style_image) == (("sea",), ("x/wave.png",))
    assert settings_of(one)["style_image"] == "x/wave.png" and "add_to" not in settings_of(one)
    with_photo = TrainConfig(style_image="x/wave.png", content=("c",), out="o", name="sea", with_photo=True)
    assert with_photo.style_names == ("sea", "photo") and settings_of(with_photo)["with_photo"] is True
