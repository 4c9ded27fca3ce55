"""The start network that stylemill contains."""

from __future__ import annotations

import hashlib

import torch

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
