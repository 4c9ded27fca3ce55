"""The start network and the trained styles that stylemill contains."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
import torch

from stylemill.demo.carried_styles import MODELS, model_bytes
from stylemill.style_model import from_bytes
from stylemill.training.config import TrainConfig
from stylemill.training.start_network import SHA256, builtin_start

MAX_BYTES = 2_000_000


def test_the_start_network_is_the_recorded_one_and_fits_the_default_architecture():
    data = builtin_start()
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert len(data) <= MAX_BYTES
    model = from_bytes(data, source="start network")
    default = TrainConfig(style_image="a.png", content=("b",), out="c")
    for name in ("width", "upsampling", "norm", "residual"):
        assert getattr(model.architecture, name) == getattr(default, name)
    assert {tensor.dtype for tensor in model.state_dict.values()} == {torch.float16}


@pytest.mark.parametrize("name", MODELS)
def test_the_styles_of_the_demo_are_the_recorded_ones(name):
    data = model_bytes(name)
    assert hashlib.sha256(data).hexdigest() == MODELS[name].sha256
    assert len(data) <= MAX_BYTES and from_bytes(data, source=name).name == name


def test_nothing_else_is_carried():
    carried = {path.name for path in resources.files("stylemill.demo").joinpath("models").iterdir()}
    assert carried == {f"{name}.safetensors" for name in MODELS}
