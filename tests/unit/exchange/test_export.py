from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from stylemill.errors import ConfigError
from stylemill.exchange import export as export_module
from stylemill.exchange.convert import convert, with_raw_pixels
from stylemill.exchange.export import TOLERANCE, export, export_together
from stylemill.exchange.onnx_graph import OPSET
from stylemill.exchange.torchscript import METADATA_FILE, load_torchscript
from stylemill.storage import Storage
from stylemill.style_choice import load_styles
from stylemill.style_model import StyleModel, from_bytes
from tests.unit.exchange import checkpoints
from tests.unit.nn.nets import VARIANTS, plain_values, seeded_net, smooth_image, variant_net
from tests.unit.test_style_file import merged, relatives

PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "photos"
FOLDABLE = [name for name in VARIANTS if name != "imagenet tanh"]


def style(net, name="candy"):
    return StyleModel(
        name=name,
        version="1",
        architecture=net.architecture,
        state_dict=net.state_dict(),
        metadata={"seed": 0},
        sha256="f" * 64,
    )


def as_batch(images):
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)


def run_onnx(data, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": as_batch(images)})[0].transpose(0, 2, 3, 1)


def run_torchscript(data, images):
    painter = load_torchscript(data)
    with torch.inference_mode():
        return painter(torch.from_numpy(as_batch(images))).numpy().transpose(0, 2, 3, 1)


RUN = {"onnx": run_onnx, "torchscript": run_torchscript}


def photos():
    """Two photographs of the trial data at an uneven size, or drawn pictures where there are none."""
    paths = sorted(PHOTOS.glob("*.jpg"))[:2]
    if not paths:
        return [smooth_image(163, 210), smooth_image(163, 210)[::-1].copy()]
    return [np.asarray(Image.open(path).convert("RGB").resize((210, 163))) for path in paths]


@pytest.mark.parametrize("to", RUN)
def test_photographs_are_painted_as_by_the_plain_network(to):
    net, images = seeded_net(0.5), photos()
    wanted = [np.clip(plain_values(net, image_HWC), 0, 255) for image_HWC in images]
    painted_NHWC = RUN[to](export(style(net), to).data, images)
    error = np.abs(painted_NHWC - np.stack(wanted))
    assert error.max() < TOLERANCE
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


@pytest.mark.parametrize(
    ("name", "to"),
    [(name, "onnx") for name in FOLDABLE]
    + [(name, "torchscript") for name in ("bgr tanh", "raw group shuffle", "bgr batch bicubic")],
)
def test_every_variant_is_exported_for_any_batch_height_and_width(name, to):
    net = variant_net(width=0.1, **VARIANTS[name])
    data = export(style(net), to).data
    for number, size in ((1, (25, 38)), (3, (17, 30)), (2, (9, 10))):
        images = [smooth_image(*size), smooth_image(*size)[:, ::-1].copy(), smooth_image(*size)[::-1].copy()][:number]
        wanted = [np.clip(plain_values(net, image_HWC), 0, 255) for image_HWC in images]
        painted_NHWC = RUN[to](data, images)
        assert painted_NHWC.shape == (number, *size, 3)
        assert np.abs(painted_NHWC - np.stack(wanted)).max() < TOLERANCE


def test_an_onnx_file_says_what_it_is():
    exported = export(style(seeded_net(0.1)), "onnx")
    model = onnx.load_from_string(exported.data)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert properties["opset"] == str(OPSET) and f"opset {OPSET}" in exported.description
    assert properties["style"] == "candy" and properties["style_model_sha256"] == "f" * 64
    assert "0 to 255" in properties["input"]
    for end in (*model.graph.input, *model.graph.output):
        assert [side.dim_param or side.dim_value for side in end.type.tensor_type.shape.dim] == [
            "batch",
            3,
            "height",
            "width",
        ]
    assert export(style(seeded_net(0.1)), "onnx").data == exported.data


def test_torchscript_says_what_it_is():
    files = {METADATA_FILE: ""}
    torch.jit.load(io.BytesIO(export(style(seeded_net(0.1)), "torchscript").data), _extra_files=files)
    assert json.loads(files[METADATA_FILE])["style"] == "candy"


@pytest.mark.parametrize("name", ["default", *FOLDABLE])
def test_a_network_on_raw_pixels_is_the_same_network(name):
    net = variant_net(**VARIANTS.get(name, {}))
    raw, image_HWC = with_raw_pixels(net), smooth_image(48, 60)
    pixels_NCHW = torch.from_numpy(as_batch([image_HWC]))
    with torch.inference_mode():
        levels_NCHW = raw.repaint(pixels_NCHW) * raw.architecture.pixels.output_scale
    assert np.abs(levels_NCHW[0].permute(1, 2, 0).numpy() - plain_values(net, image_HWC)).max() < 0.05


def test_exported_safetensors_are_a_style_model_of_raw_levels():
    net = seeded_net(0.25)
    model = from_bytes(export(style(net), "safetensors").data, source="test")
    assert model.architecture.pixels.normalisation == "none" and model.architecture.pixels.input_scale == 1
    assert model.metadata == {"seed": 0, "exported_from_sha256": "f" * 64}
    image_HWC = smooth_image(40, 51)
    assert np.abs(plain_values(model.build_network(), image_HWC) - plain_values(net, image_HWC)).max() < 0.02


def test_a_checkpoint_for_pytorch_examples_is_what_its_script_loads():
    net = seeded_net(1.0)
    state = torch.load(io.BytesIO(export(style(net), "pt-examples").data), weights_only=True)
    published = checkpoints.examples_checkpoint(divisor=1)
    assert {key: tensor.shape for key, tensor in state.items()} == {key: t.shape for key, t in published.items()}
    image_HWC = smooth_image(44, 60)
    assert np.abs(checkpoints.examples_values(state, image_HWC) - plain_values(net, image_HWC)).max() < 0.05


def test_an_imported_checkpoint_leaves_as_it_came():
    checkpoint, buffer = checkpoints.examples_checkpoint(divisor=1), io.BytesIO()
    torch.save(checkpoint, buffer)
    model = convert(buffer.getvalue(), source="a.pth", name="candy")
    state = torch.load(io.BytesIO(export(model, "pt-examples").data), weights_only=True)
    assert all(torch.allclose(state[key], checkpoint[key], rtol=1e-6) for key in checkpoint)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": 0.5}, "its width is 0.5"),
        ({"width": 1.0, "upsampling": "transposed"}, "its upsampling is transposed"),
        ({"width": 1.0, "norm": "group"}, "its norm is group"),
        ({"width": 1.0, "residual": "separable"}, "its residual is separable"),
    ],
)
def test_a_network_that_the_layout_cannot_hold_is_refused_in_one_line(fields, reason):
    with pytest.raises(ConfigError, match=reason) as refused:
        export(style(variant_net(**fields)), "pt-examples")
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="ImageNet's scale"):
        export(style(variant_net(**VARIANTS["imagenet tanh"])), "onnx")


def test_without_the_extra_onnx_is_refused_in_one_line(monkeypatch):
    find_spec = export_module.importlib.util.find_spec
    monkeypatch.setattr(
        export_module.importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'stylemill\[onnx\]'") as refused:
        export(style(seeded_net(0.1)), "onnx")
    assert "\n" not in str(refused.value)


def test_what_would_paint_something_else_is_not_written(monkeypatch):
    wrong = variant_net(width=0.1, seed=9)
    monkeypatch.setattr(export_module, "with_raw_pixels", lambda _: with_raw_pixels(wrong))
    with pytest.raises(Exception, match="differs from the network by up to"):
        export(replace(style(seeded_net(0.1))), "onnx")


def test_the_styles_of_one_network_are_one_graph_with_their_weights_as_input(tmp_path):
    path = tmp_path / "many.safetensors"
    like = style(variant_net(width=0.1, upsampling="shuffle"))
    path.write_bytes(merged(*relatives("wave", "ink", "gold", like=like)))
    models = load_styles(Storage(), [str(path)])
    exported = export_together(models)
    assert "style_weights (3,) float32: wave, ink, gold" in exported.description
    assert export_together(models).data == exported.data
    (mixed,) = load_styles(Storage(), [str(path)], None, ["wave:0.25,gold:0.75"])
    image_HWC = smooth_image(25, 38)
    for model, weights in ((models[1], [0, 1, 0]), (mixed, [0.25, 0, 0.75])):
        painted_HWC = export_module._read_onnx(exported.data, image_HWC, np.array(weights, np.float32))
        wanted_HWC = np.clip(plain_values(model.build_network(), image_HWC), 0, 255)
        assert np.abs(painted_HWC - wanted_HWC).max() < TOLERANCE
    properties = {entry.key: entry.value for entry in onnx.load_from_string(exported.data).metadata_props}
    assert properties["style"] == "wave,ink,gold"
