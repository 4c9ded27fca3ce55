from __future__ import annotations

import io
import os
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from stylemill.errors import ConfigError
from stylemill.exchange import checkpoint as checkpoint_module
from stylemill.exchange.convert import convert
from stylemill.exchange.foreign import LAYOUTS
from stylemill.nn.fast_net import FastNet
from stylemill.nn.tiled.stylize import tiled_values
from stylemill.style_model import from_bytes, to_bytes
from tests.unit.exchange import checkpoints
from tests.unit.nn.nets import plain_values, smooth_image

TANH = 150.0
CASES = {
    "pytorch/examples fast_neural_style": (checkpoints.examples_checkpoint(), checkpoints.examples_values, None),
    "pytorch/examples fast_neural_style, old": (
        checkpoints.examples_checkpoint(running=True),
        checkpoints.examples_values,
        None,
    ),
    "gordicaleksa/pytorch-nst-feedforward": (
        checkpoints.gordicaleksa_checkpoint(),
        checkpoints.gordicaleksa_values,
        None,
    ),
    "eriklindernoren/Fast-Neural-Style-Transfer": (
        checkpoints.eriklindernoren_checkpoint(),
        checkpoints.eriklindernoren_values,
        None,
    ),
    "rrmina/fast-neural-style-pytorch": (checkpoints.rrmina_checkpoint(), checkpoints.rrmina_values, None),
    "rrmina/fast-neural-style-pytorch, tanh": (
        checkpoints.rrmina_checkpoint(is_tanh=True),
        lambda state, image_HWC: checkpoints.rrmina_values(state, image_HWC, TANH),
        TANH,
    ),
}


def saved(loaded, **options):
    buffer = io.BytesIO()
    torch.save(loaded, buffer, **options)
    return buffer.getvalue()


def converted(checkpoint, tanh_scale=None, **options):
    return convert(saved(checkpoint, **options), source="a.pth", name="candy", tanh_scale=tanh_scale)


@pytest.mark.parametrize("case", CASES)
def test_every_layout_is_converted_to_its_own_arithmetic(case):
    checkpoint, values, tanh_scale = CASES[case]
    model = converted(checkpoint, tanh_scale)
    assert model.metadata["imported"]["layout"] == case.removesuffix(", old").removesuffix(", tanh")
    net = from_bytes(to_bytes(model), source="test").build_network()
    image_HWC = smooth_image(60, 84)
    wanted_HWC = values(checkpoint, image_HWC)
    assert wanted_HWC.std() > 5 and np.mean((wanted_HWC > 0) & (wanted_HWC < 255)) > 0.2
    fast = FastNet(net, precision="float32", num_threads=2)
    for got_HWC in (
        plain_values(net, image_HWC),
        fast.values(image_HWC),
        tiled_values(fast, image_HWC, max_memory_bytes=1 << 40, band_bytes=30_000),
    ):
        assert np.abs(got_HWC - wanted_HWC).max() < 0.05
    painted_HWC = fast.stylize(image_HWC)
    assert np.abs(painted_HWC - np.clip(wanted_HWC, 0, 255)).max() < 0.56


def test_the_channels_are_the_right_way_round():
    """A network of blue-first pixels that reads and writes red alone must see red."""
    checkpoint = checkpoints.rrmina_checkpoint()
    checkpoint["ConvBlock.0.conv_layer.weight"][:, :2] = 0
    net = converted(checkpoint).build_network()
    image_HWC = smooth_image(32, 32)
    other_HWC = image_HWC.copy()
    other_HWC[..., 1:] = 255 - other_HWC[..., 1:]
    assert np.array_equal(plain_values(net, image_HWC), plain_values(net, other_HWC))


def test_running_statistics_of_old_checkpoints_do_not_count():
    old, new = checkpoints.examples_checkpoint(running=True), checkpoints.examples_checkpoint(running=True)
    assert any(key.endswith("running_mean") for key in old)
    for key in old:
        if "running" in key:
            new[key] = new[key] + 5
    assert converted(old).version == converted(new).version


def test_a_checkpoint_may_be_wrapped_narrow_half_precise_or_in_the_oldest_format():
    plain = checkpoints.eriklindernoren_checkpoint()
    wanted = converted(plain)
    assert wanted.architecture.width == 0.25
    assert converted({f"module.{key}": value for key, value in plain.items()}).version == wanted.version
    assert converted(plain, _use_new_zipfile_serialization=False).version == wanted.version
    assert converted({key: value.double() for key, value in plain.items()}).version == wanted.version


def _wrapped(plain: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return a checkpoint as training scripts and libraries store it, by who does."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    beside = {"vgg.features.0.weight": torch.zeros(3, 3), "loss.mean": torch.zeros(3)}

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {f"{prefix}{key}": value for key, value in plain.items()}

    return {
        "a script": {"model": plain, "optimizer": optimizer, "epoch": 3},
        "another script": {"model_state_dict": plain, "optimizer_state_dict": optimizer, "loss": 0.5},
        "torch.compile": under("_orig_mod."),
        "DataParallel": under("module."),
        "both": under("module._orig_mod."),
        "Lightning": {"state_dict": under("model.") | beside, "pytorch-lightning_version": "2.4", "epoch": 3},
        "Lightning with torch.compile": {"state_dict": under("net._orig_mod.") | beside},
        "a wrapper in a wrapper": {"model": {"state_dict": plain, "step": torch.tensor(3.0)}},
    }


@pytest.mark.parametrize("who", _wrapped({}))
@pytest.mark.parametrize("layout", ["examples", "gordicaleksa", "eriklindernoren", "rrmina"])
def test_a_checkpoint_is_found_in_whatever_it_is_wrapped(who: str, layout: str):
    plain = getattr(checkpoints, f"{layout}_checkpoint")()
    plain = plain.get("state_dict", plain)
    assert converted(_wrapped(plain)[who]).version == converted(plain).version


def test_safetensors_are_read_and_damaged_ones_are_refused():
    plain = checkpoints.examples_checkpoint()
    data = safetensors.torch.save(plain)
    assert convert(data, source="mosaic.safetensors", name="mosaic").version == converted(plain).version
    for damaged in (data[:-1], data[:200], data[:8] + b"{}" + data[10:]):
        with pytest.raises(ConfigError, match=r"damaged|state dict") as refused:
            convert(damaged, source="mosaic.safetensors", name="mosaic")
        assert "\n" not in str(refused.value)


def test_the_parameters_of_an_onnx_file_of_a_known_network_are_read():
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    plain = checkpoints.examples_checkpoint()
    initialisers = [onnx.numpy_helper.from_array(value.numpy(), key) for key, value in plain.items()]
    graph = onnx.helper.make_graph([], "drawn", [], [], initialisers)
    data = onnx.helper.make_model(graph).SerializeToString()
    assert convert(data, source="mosaic.onnx", name="mosaic").version == converted(plain).version
    for damaged, problem in ((data[:-5], "damaged"), (b"", "damaged|holds no"), (b"\xff" * 40, "damaged")):
        with pytest.raises(ConfigError, match=problem):
            convert(damaged, source="mosaic.onnx", name="mosaic")


def test_what_a_checkpoint_says_about_its_training_is_kept():
    model = converted(checkpoints.gordicaleksa_checkpoint())
    assert model.metadata["imported"]["notes"]["style_weight"] == 4e5
    assert model.metadata["imported"]["notes"]["num_of_datapoints"] == 165_568
    assert to_bytes(model) == to_bytes(converted(checkpoints.gordicaleksa_checkpoint()))


def test_an_unknown_layout_says_what_it_holds_and_what_is_known():
    with pytest.raises(ConfigError) as refused:
        converted({"layer1.0.weight": torch.zeros(3), "layer1.0.bias": torch.zeros(3)})
    message = str(refused.value)
    assert "2 tensors such as layer1.0.bias, layer1.0.weight" in message and "\n" not in message
    assert all(layout.name in message for layout in LAYOUTS)


def test_a_variant_of_a_known_layout_says_what_differs():
    checkpoint = checkpoints.examples_checkpoint()
    del checkpoint["in3.bias"]
    checkpoint["attention.weight"] = torch.zeros(3)
    with pytest.raises(ConfigError, match=r"almost pytorch/examples.*lacks in3.bias and adds attention.weight"):
        converted(checkpoint)


def test_shapes_that_do_not_fit_are_named():
    checkpoint = checkpoints.examples_checkpoint()
    checkpoint["conv2.conv2d.weight"] = torch.zeros(16, 8, 5, 5)
    with pytest.raises(ConfigError, match=r"conv2.conv2d.weight .* \(16, 8, 5, 5\) instead of \(16, 8, 3, 3\)"):
        converted(checkpoint)


def test_values_that_are_not_finite_or_no_floats_are_refused():
    checkpoint = checkpoints.examples_checkpoint()
    checkpoint["in1.weight"][0] = torch.nan
    with pytest.raises(ConfigError, match=r"in1.weight that are not finite"):
        converted(checkpoint)
    checkpoint["in1.weight"] = torch.ones(8, dtype=torch.int32)
    with pytest.raises(ConfigError, match=r"in1.weight holds torch.int32"):
        converted(checkpoint)


def test_a_tensor_that_pretends_to_be_large_is_never_copied():
    checkpoint = checkpoints.examples_checkpoint()
    checkpoint["in1.weight"] = torch.zeros(1).expand(1 << 50)
    with pytest.raises(ConfigError, match=r"in1.weight .* instead of \(8,\)"):
        converted(checkpoint)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_in_one_line(share):
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        data = saved(checkpoints.examples_checkpoint(), **options)
        with pytest.raises(ConfigError, match="damaged") as refused:
            convert(data[: int(len(data) * share)], source="a.pth", name="candy")
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a checkpoint at all", pickle.dumps([1, 2])])
def test_other_files_are_refused(data):
    with pytest.raises(ConfigError):
        convert(data, source="a.pth", name="candy")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_file_that_needs_code_is_refused_with_the_reason_and_not_run(tmp_path, options):
    mark = tmp_path / "mark"
    with pytest.raises(ConfigError, match=r"needs posix.mkdir"):
        converted({"state_dict": checkpoints.examples_checkpoint(), "hook": Bomb(mark)}, **options)
    assert not mark.exists()


def test_a_whole_pickled_network_is_refused_with_a_cure():
    with pytest.raises(ConfigError, match=r"torch.save\(network.state_dict"):
        converted(torch.nn.Conv2d(3, 3, 3))
    with pytest.raises(ConfigError, match="holds the keys epoch instead of a state dict"):
        converted({"epoch": 3})


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(checkpoint_module, "MAX_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", b"\0" * (3 << 20))
    assert len(buffer.getvalue()) < 1 << 20
    with pytest.raises(ConfigError, match="has 3 MiB"):
        convert(buffer.getvalue(), source="a.pth", name="candy")


def test_a_tanh_is_only_there_where_the_layout_has_one():
    with pytest.raises(ConfigError, match="no variant that ends in a tanh"):
        converted(checkpoints.examples_checkpoint(), TANH)
