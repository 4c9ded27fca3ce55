from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.nn.fast import FastNet, resolve_precision
from pipeline.nn.precision import native_bfloat16
from pipeline.nn.transformer_net import Architecture, TransformerNet


def seeded_net(width=0.25, upsampling="nearest", seed=0):
    net = TransformerNet(Architecture(width=width, upsampling=upsampling)).eval()
    net.init_weights(seed)
    return net


def drawn_image(height_px, width_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("height_px", [1, 2, 3, 15, 16, 17, 67])
def test_every_odd_size_comes_back_in_its_own_size(height_px):
    fast = FastNet(seeded_net(width=0.05), precision="float32")
    for width_px in range(1, 68, 2):
        painted_HWC = fast.stylize(drawn_image(height_px, width_px))
        assert painted_HWC.shape == (height_px, width_px, 3) and painted_HWC.dtype == np.uint8
        assert painted_HWC.flags.c_contiguous


def test_the_given_network_is_not_touched():
    net = seeded_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    FastNet(net, precision="float32").stylize(drawn_image(20, 20))
    assert next(net.parameters()).requires_grad
    for key, value in net.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])


def test_precisions_and_devices_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="half"):
        resolve_precision("half")
    with pytest.raises(ConfigError, match="this machine has cpu"):
        resolve_precision("float32", "cuda:99")
    assert resolve_precision("auto") == ("bfloat16" if native_bfloat16() else "float32")
    assert resolve_precision("float32") == "float32"
    if not native_bfloat16():
        with pytest.raises(ConfigError, match="native"):
            resolve_precision("bfloat16")
