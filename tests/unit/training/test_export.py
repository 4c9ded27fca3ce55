from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.style_choice import load_styles
from stylemill.style_file import load_style_headers, split_styles
from stylemill.style_model import StyleModel, from_bytes, load_style_model, to_bytes
from stylemill.training.checkpoint import TrainState
from stylemill.training.config import TrainConfig
from stylemill.training.export import export_style
from stylemill.training.initial_net import initial_net
from stylemill.training.layout import TrainLayout
from stylemill.training.style_input import StyleInput
from tests.drawn import image_bytes, style_model


def style_input(name: str) -> StyleInput:
    png = image_bytes(300, 400, seed=len(name), format="PNG")
    return StyleInput(name=name, uri=f"{name}.png", png=png, sha256=f"digest of {name}")


def test_a_style_whose_last_steps_were_skipped_is_written(tmp_path):
    """The loss of a skipped step is not finite, which JSON cannot represent."""
    net = TransformerNet(Architecture(width=0.1))
    net.init_weights(0)
    losses = [1.5, float("nan"), float("inf"), 1.25]
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    export_style(
        Storage(), TrainLayout(str(tmp_path)), TrainConfig(style_image="a.png", content=("b",), out=str(tmp_path)),
        TrainState.fresh(net), rows, loss_digest="", loss_weights={"source": "hed", "licence": "MIT"},
        styles=[style_input("a")], added_to=None, start_sha256="ab", teacher_sha256=None, num_content=1, left_out=[],
    )  # fmt: skip
    model = load_style_model(Storage(), str(tmp_path / "style.safetensors"))
    assert model.metadata["loss_tail"] == [1.5, None, None, 1.25]
    assert model.metadata["loss_weights"] == {"source": "hed", "licence": "MIT"}
    assert model.metadata["start_sha256"] == "ab" and "teacher_sha256" not in model.metadata
    assert all(tensor.isfinite().all() for tensor in model.state_dict.values() if isinstance(tensor, torch.Tensor))


def exported(folder: Path, net: TransformerNet, *names: str, **fields: Any) -> list[StyleModel]:
    """Export a network as a run over these styles leaves it; return the styles of its file."""
    config = TrainConfig(
        style_image=tuple(f"{name}.png" for name in names), content=("b",), out=str(folder),
        **{"add_to": "old.safetensors"} if fields.get("added_to") else {},
    )  # fmt: skip
    history = {"loss_digest": "", "loss_weights": None, "start_sha256": None, "teacher_sha256": None}
    export_style(
        Storage(), TrainLayout(str(folder)), config, TrainState.fresh(net), [], num_content=1, left_out=[],
        styles=[style_input(name) for name in names], **{"added_to": None} | history | fields,
    )  # fmt: skip
    return load_styles(Storage(), [str(folder / "style.safetensors")])


def test_each_style_of_a_network_has_its_own_norms_image_and_version(tmp_path: Path):
    net = TransformerNet(Architecture(width=0.1), num_styles=2)
    net.init_weights(0)
    with torch.no_grad():
        net.stem.norm.weight[1] += 1
    wave, ink = exported(tmp_path, net, "wave", "ink")
    assert torch.equal(ink.state_dict["stem.norm.weight"], wave.state_dict["stem.norm.weight"] + 1)
    assert torch.equal(ink.state_dict["stem.conv.weight"], wave.state_dict["stem.conv.weight"])
    assert (wave.metadata["config"]["style_image"], ink.metadata["config"]["style_image"]) == ("wave.png", "ink.png")
    assert ink.metadata["style_image_sha256"] == "digest of ink"
    assert ink.metadata["trained_together"] == ["wave", "ink"]
    assert wave.version != ink.version
    header = load_style_headers(Storage(), str(tmp_path / "style.safetensors"))[0]
    assert header.picture is not None and len(header.picture) < 20_000
    with Image.open(io.BytesIO(header.picture)) as picture:
        assert picture.size == (192, 144)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_added_styles_leave_the_others_as_they_are_to_the_last_bit(dtype: torch.dtype, tmp_path: Path):
    base = style_model("old")
    old = to_bytes(replace(base, state_dict={key: tensor.to(dtype) for key, tensor in base.state_dict.items()}))
    config = TrainConfig(style_image="new.png", content=("b",), out="o", add_to="old.safetensors")
    net = initial_net(config, old, torch.device("cpu"))
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == {
        name for name, _ in net.named_parameters() if ".norm." in name
    }
    with torch.no_grad():
        net.stem.norm.weight += 0.3
    exported(tmp_path, net, "new", added_to=old)
    first, second = split_styles((tmp_path / "style.safetensors").read_bytes(), source="m")
    assert first == old
    new = from_bytes(second, source="m")
    assert new.name == "new" and new.state_dict["stem.conv.weight"].dtype == dtype
    assert not torch.equal(new.state_dict["stem.norm.weight"], base.state_dict["stem.norm.weight"].to(dtype))
