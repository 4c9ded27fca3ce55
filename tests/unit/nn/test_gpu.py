"""The module that a GPU runs, on this CPU; tests/gpu runs it on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylemill.nn.cpu.folding import OUTPUT_CENTRE
from stylemill.nn.gpu import FoldedNet
from tests.unit.nn.nets import VARIANTS, plain_values, seeded_net, smooth_image, variant_net


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
def test_the_module_for_gpus_is_the_plain_network(upsampling):
    net, images = seeded_net(0.5, upsampling), [smooth_image(32, 44), smooth_image(32, 44)[::-1]]
    folded = FoldedNet(net, torch.float32)
    batch_NHWC = torch.from_numpy(np.stack(images))
    values_NHWC = folded.values(batch_NHWC).numpy() + OUTPUT_CENTRE
    for image_HWC, values_HWC, painted_HWC in zip(images, values_NHWC, folded(batch_NHWC).numpy(), strict=True):
        assert np.abs(values_HWC - plain_values(net, image_HWC)).max() < 0.02
        assert np.array_equal(painted_HWC, np.clip(np.round(values_HWC), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_for_gpus_is_the_plain_network(name):
    net, images = variant_net(**VARIANTS[name]), [smooth_image(32, 44), smooth_image(32, 44)[::-1].copy()]
    values_NHWC = FoldedNet(net, torch.float32).values(torch.from_numpy(np.stack(images))).numpy() + OUTPUT_CENTRE
    for image_HWC, values_HWC in zip(images, values_NHWC, strict=True):
        assert np.abs(values_HWC - plain_values(net, image_HWC)).max() < 0.02
