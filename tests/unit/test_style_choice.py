"""Choosing and mixing styles of one or several files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from stylemill.errors import ConfigError
from stylemill.nn.cpu.direct_conv import DirectConv
from stylemill.nn.fast_net import FastNet
from stylemill.storage import Storage
from stylemill.style_choice import choose_styles, load_styles
from stylemill.style_file import OWN_PARTS, PAINTS_PHOTOGRAPHS
from stylemill.style_model import StyleModel, to_bytes
from tests.drawn import drawn_image, style_model
from tests.unit.test_style_file import merged, relatives


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "many.safetensors").write_bytes(merged(*relatives("wave", "ink", "gold")))
    (tmp_path / "other.safetensors").write_bytes(to_bytes(style_model("clay", seed=5)))
    return tmp_path


def names(folder: Path, *files: str, styles: tuple[str, ...] = ()) -> list[str]:
    return [style.name for style in choose_styles(Storage(), [str(folder / file) for file in files], None, styles)]


def load(folder: Path, *styles: str) -> list[StyleModel]:
    return load_styles(Storage(), [str(folder / "many.safetensors")], None, styles)


def test_all_styles_of_all_files_are_painted_unless_some_are_chosen(files: Path):
    assert names(files, "many.safetensors", "other.safetensors") == ["wave", "ink", "gold", "clay"]
    assert names(files, "many.safetensors#ink", "other.safetensors") == ["ink", "clay"]
    assert names(files, "other.safetensors", "many.safetensors", styles=("gold", "clay")) == ["gold", "clay"]


def test_the_style_that_paints_photographs_as_they_are_is_painted_only_where_it_is_named(tmp_path: Path):
    wave, photo = relatives("wave", "photo")
    photo = replace(photo, metadata={**photo.metadata, PAINTS_PHOTOGRAPHS: True})
    (tmp_path / "both.safetensors").write_bytes(merged(wave, photo))
    (tmp_path / "photo.safetensors").write_bytes(to_bytes(photo))
    assert names(tmp_path, "both.safetensors") == ["wave"]
    assert names(tmp_path, "both.safetensors", styles=("photo",)) == ["photo"] == names(tmp_path, "photo.safetensors")
    assert names(tmp_path, "both.safetensors", styles=("wave:0.7,photo:0.3",)) == ["wave-0.7-photo-0.3"]
    # By its own file or by its name in the location it is named, as the models of a run are for a repair.
    (tmp_path / "wave.safetensors").write_bytes(to_bytes(wave))
    for photo_file in ("photo.safetensors", "both.safetensors#photo"):
        assert names(tmp_path, "wave.safetensors", photo_file) == ["wave", "photo"]
    both = choose_styles(Storage(), [str(tmp_path / "both.safetensors")], with_photo=True)
    assert [style.name for style in both] == ["wave", "photo"]


def test_a_style_of_several_is_the_same_model_as_alone(files: Path):
    (ink,) = load(files, "ink")
    alone = relatives("wave", "ink")[1]
    assert ink.sha256 == hashlib.sha256(to_bytes(alone)).hexdigest()
    assert to_bytes(ink) == to_bytes(alone)


def test_a_mixture_is_the_mean_of_the_norms(files: Path):
    wave, ink = load(files, "wave", "ink")
    (mixed,) = load(files, "wave:0.7,ink:0.3")
    assert mixed.name == "wave-0.7-ink-0.3"
    for key, tensor in mixed.state_dict.items():
        expected = wave.state_dict[key]
        if OWN_PARTS in key:
            expected = (0.7 * wave.state_dict[key].double() + 0.3 * ink.state_dict[key].double()).float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-7)
    assert mixed.sha256 == hashlib.sha256(to_bytes(mixed)).hexdigest() != wave.sha256
    assert [part["sha256"] for part in mixed.metadata["mixture"]] == [wave.sha256, ink.sha256]
    assert mixed.version != load(files, "wave:0.6,ink:0.4")[0].version


def test_the_identity_is_that_of_the_loaded_model(files: Path):
    for style in choose_styles(Storage(), [str(files / "many.safetensors")], None, ("ink", "wave:0.7,ink:0.3")):
        model = style.load()
        assert style.identity() == (model.name, model.version, model.sha256)


def test_weights_are_made_to_sum_to_one_with_a_note(files: Path, caplog):
    (mixed,) = load(files, "wave:3, ink:1")
    assert mixed.name == "wave-0.75-ink-0.25"
    assert "the weights of wave:3, ink:1 sum to 4 and are taken as wave:0.75, ink:0.25" in caplog.text
    caplog.clear()
    load(files, "wave:0.3333333,ink:0.3333333,gold:0.3333334")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("style", "complaint"),
    [
        ("clay", "is not among the styles: there are wave, ink, gold"),
        ("wave,ink", "is not among the styles"),
        ("wave:0.5,clay:0.5", "mixes 'clay', but there are wave, ink, gold"),
        ("wave:0.5", "is a mixture of one style; name a second style, or use --strength"),
        ("wave:0.5,wave:0.5", "has wave twice"),
        ("wave:0,ink:1", "has no weight above 0 for wave"),
        ("wave:-1,ink:2", "has no weight above 0 for wave"),
        ("wave:nan,ink:1", "has no weight above 0 for wave"),
        ("wave:inf,ink:1", "has no weight above 0 for wave"),
        ("wave:much,ink:1", "has no weight above 0 for wave"),
    ],
)
def test_mistakes_say_what_there_is(files: Path, style: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(files, style)
    assert caught.value.field == "style"


def test_a_style_is_chosen_once(files: Path):
    with pytest.raises(ConfigError, match="is chosen twice"):
        load(files, "ink", "ink")
    with pytest.raises(ConfigError, match="is a second model of style 'ink'"):
        names(files, "many.safetensors", "many.safetensors#ink")


def test_styles_of_different_networks_are_not_mixed(files: Path):
    with pytest.raises(ConfigError, match="mixes wave and clay, which have different convolutions"):
        names(files, "many.safetensors", "other.safetensors", styles=("wave:0.5,clay:0.5",))


def test_a_name_with_marks_of_a_mixture_can_be_chosen(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(to_bytes(replace(style_model(), name="sun:1,sea:2")))
    assert names(tmp_path, "a.safetensors", styles=("sun:1,sea:2",)) == ["sun:1,sea:2"]


def _weights_of(conv: object) -> list[object]:
    return [phase.conv for phase in conv.phases] if isinstance(conv, DirectConv) else [conv]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_styles_of_one_network_share_its_packed_convolutions_and_nothing_else(files: Path, precision: str):
    image_HWC = drawn_image(40, 52)
    alone = []
    for model in load(files):
        net = FastNet(model.build_network(), precision=precision, num_threads=1)
        alone.append(net.stylize(image_HWC))
        del net
    nets = [FastNet(model.build_network(), precision=precision, num_threads=1) for model in load(files)]
    packed = [(net.layers.ups[0].conv, net.layers.stem.conv, net.layers.head.conv) for net in nets]
    first, *others = [[_weights_of(conv) for conv in convs] for convs in packed]
    assert all(mine is shared for convs in others for mine, shared in zip(chain(*convs), chain(*first), strict=True))
    painted = [net.stylize(image_HWC) for net in nets]
    assert all(np.array_equal(one, other) for one, other in zip(painted, alone, strict=True))
    assert not np.array_equal(painted[0], painted[1])


def test_long_mixtures_have_a_name_that_every_file_system_holds(tmp_path: Path):
    styles = [f"a rather long name {number}" for number in range(9)]
    (tmp_path / "m.safetensors").write_bytes(merged(*relatives(*styles)))
    (name,) = names(tmp_path, "m.safetensors", styles=(",".join(f"{style}:1" for style in styles),))
    assert name.startswith("mixture-") and len(name) == 20
