"""Networks, images and the plain forward pass that the tests of the engine compare with."""

from __future__ import annotations

import numpy as np
import torch

from stylemill.nn.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize, pad_to_network
from stylemill.nn.transformer_net import Architecture, TransformerNet


def seeded_net(width=0.25, upsampling="nearest", seed=0):
    """A network with fresh weights and norms that are not all alike, as training leaves them."""
    net = TransformerNet(Architecture(width=width, upsampling=upsampling)).eval()
    net.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def drawn_image(height_px, width_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def smooth_image(height_px, width_px):
    """Something like a photograph: slopes and edges rather than noise."""
    y, x = np.mgrid[:height_px, :width_px] / 37.0
    waves = [np.sin(x + 2 * y), np.cos(3 * x - y) * np.sin(y), np.sign(np.sin(x * y / 3))]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def plain_values(net, image_HWC):
    """What the network as trained gives on the scale of 0 to 255, before rounding."""
    std, mean = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_STD, IMAGENET_MEAN))
    with torch.inference_mode():
        out_NCHW = net(normalize(torch.from_numpy(pad_to_network(image_HWC).copy())[None]))
    height_px, width_px = image_HWC.shape[:2]
    return (255 * (out_NCHW * std + mean))[0].permute(1, 2, 0).numpy()[:height_px, :width_px]
