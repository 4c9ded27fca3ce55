"""What a network makes of flat colours, of which it saw none: a flat colour, no blobs and no explosion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import style_target
from stylemill.nn.pixels import deprocess, normalize
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.training.checkpoint import TrainState
from stylemill.training.schedule import one_cycle
from stylemill.training.train_step import ReducedPrecisionNet, StepSetup, train_step
from tests.drawn import drawn_image

STEPS, CROP_PX = 10, 64


def trained() -> ReducedPrecisionNet:
    network = PyramidLossNetwork()
    target = style_target(network, normalize(torch.from_numpy(drawn_image(96, 96, seed=77))[None]))
    setup = StepSetup(
        loss_network=network, target=target, weights=LossWeights(), dtype=torch.float32,
        max_gradient_norm=5.0, batch_size=2, num_workers=1, micro_batch_size=2,
    )  # fmt: skip
    net = TransformerNet(Architecture(width=0.25))
    net.init_weights(0)
    state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
    model = ReducedPrecisionNet(state.net, setup.dtype)
    for step in range(STEPS):
        crops_NHWC = np.stack([drawn_image(CROP_PX, CROP_PX, seed=2 * step + number) for number in range(2)])
        state.set_rate(one_cycle(step, STEPS, 4e-3))
        batch_NCHW = normalize(torch.from_numpy(crops_NHWC)).contiguous(memory_format=torch.channels_last)
        assert train_step(model, state.optimizer, batch_NCHW, setup).is_finite
    return model


@torch.no_grad()
def paint(model: ReducedPrecisionNet, image_HWC: np.ndarray) -> np.ndarray:
    batch_NCHW = normalize(torch.from_numpy(image_HWC)[None]).contiguous(memory_format=torch.channels_last)
    return deprocess(model(batch_NCHW))[0].numpy()


@pytest.fixture(scope="module")
def model() -> ReducedPrecisionNet:
    return trained()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_input_stays_flat_and_within_the_range(model: ReducedPrecisionNet, level: int):
    painted = paint(model, np.full((96, 96, 3), level, np.uint8)).astype(float)
    assert painted.std(axis=(0, 1)).max() < 1
    assert painted.min() > 20 and painted.max() < 235
