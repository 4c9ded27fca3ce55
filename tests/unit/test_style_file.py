"""Files of several styles: one network, norms of their own, and each style's own file back byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from stylemill.errors import ConfigError
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_file import (
    OWN_PARTS,
    have_one_network,
    load_style_header,
    merge_styles,
    one_style,
    read_header,
    renamed,
    split_location,
    split_styles,
    style_names,
)
from stylemill.style_model import StyleModel, from_bytes, load_style_model, to_bytes
from tests.drawn import style_model
from tests.unit.nn.nets import VARIANTS, variant_net
from tests.unit.test_style_model import FolderStore, tampered


def relatives(*names: str, like: StyleModel | None = None) -> list[StyleModel]:
    """Return styles of one network, each with norms of its own."""
    base, found = like or style_model(), []
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        own = {
            key: torch.rand(tensor.shape, generator=generator).to(tensor.dtype) if OWN_PARTS in key else tensor
            for key, tensor in base.state_dict.items()
        }
        found.append(replace(base, name=name, version=f"v{seed}", state_dict=own, metadata={"seed": seed, "ü": name}))
    return found


def merged(*models: StyleModel) -> bytes:
    return merge_styles({model.name: to_bytes(model) for model in models})


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_style_comes_back_byte_for_byte_whatever_the_network(variant):
    net = variant_net(**VARIANTS[variant])
    like = replace(style_model(), architecture=net.architecture, state_dict=net.state_dict())
    models = relatives("wave", "ink", "gold", like=like)
    data = merged(*models)
    assert style_names(data, source="m") == ["wave", "ink", "gold"]
    assert split_styles(data, source="m") == [to_bytes(model) for model in models]
    assert merge_styles({"m": data}) == data


def test_sixteen_styles_are_hardly_larger_than_one():
    net = TransformerNet(Architecture())
    like = replace(style_model(), architecture=net.architecture, state_dict=net.state_dict())
    models = relatives(*(f"style {number}" for number in range(16)), like=like)
    assert len(merged(*models)) < 1.3 * len(to_bytes(models[0]))


def test_half_precision_survives():
    base = style_model()
    half = replace(base, state_dict={key: tensor.half() for key, tensor in base.state_dict.items()})
    models = relatives("wave", "ink", like=half)
    assert split_styles(merged(*models), source="m") == [to_bytes(model) for model in models]


def test_files_of_several_can_be_merged_again_in_any_grouping():
    wave, ink, gold = relatives("wave", "ink", "gold")
    pair = merge_styles({"pair": merged(wave, ink), "gold": to_bytes(gold)})
    assert pair == merged(wave, ink, gold)
    assert merge_styles({"one": to_bytes(ink)}) == to_bytes(ink)


def test_a_style_is_chosen_by_its_name(tmp_path):
    wave, ink = relatives("wave", "ink")
    (tmp_path / "both.safetensors").write_bytes(merged(wave, ink))
    (tmp_path / "one.safetensors").write_bytes(to_bytes(wave))
    store = FolderStore(tmp_path)
    assert load_style_model(store, "both.safetensors#ink").metadata == {"seed": 1, "ü": "ink"}
    assert load_style_header(store, "both.safetensors#wave").sha256 == read_header(to_bytes(wave), source="w").sha256
    assert load_style_model(store, "one.safetensors#wave").name == "wave"
    for uri, field, complaint in (
        ("both.safetensors", "model", r"holds 2 styles: wave, ink; choose one, as both.safetensors#wave"),
        ("both.safetensors#gold", "style", r"'gold': is not in both.safetensors, which has wave, ink"),
        ("one.safetensors#ink", "style", r"'ink': is not in one.safetensors, which has wave"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            load_style_model(store, uri)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("a/b.safetensors#wave", ("a/b.safetensors", "wave")),
        ("a/b.safetensors#wave 2", ("a/b.safetensors", "wave 2")),
        ("a#1/b.safetensors", ("a#1/b.safetensors", None)),
        ("a.safetensors#x/b.safetensors", ("a.safetensors#x/b.safetensors", None)),
        ("a/b.safetensors#", ("a/b.safetensors#", None)),
        ("registry:wave", ("registry:wave", None)),
        ("https://h/a.safetensors?sig=1#ink", ("https://h/a.safetensors?sig=1", "ink")),
    ],
)
def test_only_a_style_file_has_a_fragment(uri, parts):
    assert split_location(uri) == parts


def test_what_cannot_share_a_network_is_refused():
    wave, ink = relatives("wave", "ink")
    with pytest.raises(ConfigError, match="'b': has other convolutions than a"):
        merge_styles({"a": to_bytes(wave), "b": to_bytes(style_model("other", seed=9))})
    with pytest.raises(ConfigError, match="'b': has other convolutions than a"):
        merge_styles({"a": to_bytes(wave), "b": to_bytes(style_model("other", width=0.2))})
    with pytest.raises(ConfigError, match="'b': has a style 'wave' too"):
        merge_styles({"a": to_bytes(wave), "b": to_bytes(replace(ink, name="wave"))})
    for name in ("a#b", "a:b", "a,b"):
        with pytest.raises(ConfigError, match="names have no # : ,"):
            merge_styles({"a": to_bytes(wave), "b": to_bytes(replace(ink, name=name))})


def test_a_style_gets_another_name():
    wave, ink = relatives("wave", "ink")
    data = renamed(one_style(merged(wave, ink), "ink", source="m"), "tusche", source="m")
    assert data == to_bytes(replace(ink, name="tusche"))
    with pytest.raises(ConfigError, match="cannot name a folder"):
        renamed(to_bytes(wave), "../up", source="m")


def test_names_in_a_damaged_file_never_leave_the_folder():
    data = merged(*relatives("wave", "ink"))

    def change(header):
        styles = json.loads(header["__metadata__"]["styles"])
        styles[1]["name"] = "../up"
        header["__metadata__"]["styles"] = json.dumps(styles)

    with pytest.raises(ConfigError, match="cannot name a folder"):
        style_names(tampered(data, change), source="m")


@pytest.mark.parametrize("styles", ["[]", "{}", "[{}]", "null", '[{"name": "wave", "version": "1"}] '])
def test_damaged_lists_of_styles(styles):
    data = merged(*relatives("wave", "ink"))

    def change(header):
        header["__metadata__"]["styles"] = styles

    with pytest.raises(ConfigError, match="style model"):
        one_style(tampered(data, change), "wave", source="m")


def test_truncated_files_are_refused():
    data = merged(*relatives("wave", "ink"))
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(ConfigError, match="style model"):
            from_bytes(one_style(data[:length], "ink", source="m"), source="m")


def test_styles_are_taken_apart_without_torch(tmp_path):
    (tmp_path / "m").write_bytes(merged(*relatives("wave", "ink")))
    code = (
        "import sys, pathlib; from stylemill.style_file import merge_styles, split_styles;"
        "data = pathlib.Path(sys.argv[1]).read_bytes();"
        "parts = split_styles(data, source='m'); assert merge_styles({str(n): p for n, p in enumerate(parts)}) == data;"
        "assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True)


def test_norms_of_another_type_or_of_other_parts_are_not_stacked():
    wave, ink = relatives("wave", "ink")
    half = {key: tensor.half() if OWN_PARTS in key else tensor for key, tensor in ink.state_dict.items()}
    lacking = {key: tensor for key, tensor in ink.state_dict.items() if key != "up2.norm.bias"}
    for tensors in (half, lacking):
        with pytest.raises(ConfigError, match="'ink': stores its norms in another way than wave"):
            merged(wave, replace(ink, state_dict=tensors))


def test_damaged_files_are_refused_wherever_they_are_taken_apart():
    single, pair = to_bytes(relatives("wave")[0]), merged(*relatives("wave", "ink"))
    for data in (single[:-40], pair[:-40]):
        with pytest.raises(ConfigError, match="is a damaged style model"):
            split_styles(data, source="m")
        with pytest.raises(ConfigError, match="is a damaged style model"):
            merge_styles({"m": data})
    with pytest.raises(ConfigError, match="is a damaged style model"):
        have_one_network(single, single[:-40])

    def empty(header):
        header["up2.norm.bias"]["shape"][0] = 0

    with pytest.raises(ConfigError, match="is a damaged style model"):
        split_styles(tampered(pair, empty), source="m")
