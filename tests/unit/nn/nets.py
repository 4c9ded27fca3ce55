"""Networks, images and the plain forward pass with which the tests of the fast forms compare."""

from __future__ import annotations

import functools

import numpy as np
import torch

from stylemill.nn.architecture import RAW, PixelConvention
from stylemill.nn.fast_net import FastNet
from stylemill.nn.norms import BatchNorm
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


@functools.cache
def fast_net(width=0.25, upsampling="nearest", precision="float32", num_threads=None):
    """The fast form of ``seeded_net``, shared by all tests: nothing changes it."""
    return FastNet(seeded_net(width, upsampling), precision=precision, num_threads=num_threads)


@functools.cache
def fast_variant(name, num_threads=2):
    """The float32 fast form of a variant, shared by all tests."""
    return FastNet(variant_net(**VARIANTS[name]), precision="float32", num_threads=num_threads)


def drawn_image(height_px, width_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def smooth_image(height_px, width_px):
    """Something like a photograph: slopes and edges rather than noise."""
    y, x = np.mgrid[:height_px, :width_px] / 37.0
    waves = [np.sin(x + 2 * y), np.cos(3 * x - y) * np.sin(y), np.sign(np.sin(x * y / 3))]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def plain_values(net, image_HWC):
    """The output of the network as trained, on the scale of 0 to 255, before rounding."""
    std, mean = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_STD, IMAGENET_MEAN))
    with torch.inference_mode():
        out_NCHW = net(normalize(torch.from_numpy(pad_to_network(image_HWC).copy())[None]))
    height_px, width_px = image_HWC.shape[:2]
    return (255 * (out_NCHW * std + mean))[0].permute(1, 2, 0).numpy()[:height_px, :width_px]


BGR = PixelConvention(input_scale=1.0, output_scale=150.0, channel_order="bgr", normalisation="none")

VARIANTS = {
    "transposed": {"upsampling": "transposed"},
    "shuffle": {"upsampling": "shuffle"},
    "batch": {"norm": "batch"},
    "layer": {"norm": "layer"},
    "group": {"norm": "group"},
    "separable": {"residual": "separable"},
    "raw": {"pixels": RAW},
    "bgr tanh": {"pixels": BGR, "output": "tanh", "upsampling": "transposed"},
    "imagenet tanh": {"output": "tanh"},
    "raw group shuffle": {"pixels": RAW, "norm": "group", "upsampling": "shuffle", "residual": "separable"},
    "bgr batch bicubic": {
        "pixels": PixelConvention(channel_order="bgr", input_scale=2 / 255),
        "norm": "batch",
        "upsampling": "bicubic",
    },
    "transposed layer": {"upsampling": "transposed", "norm": "layer"},
}


def variant_net(width=0.25, seed=0, **fields):
    """A network of any architecture whose every parameter and running statistic matters."""
    net = TransformerNet(Architecture(width=width, **fields)).eval()
    net.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif ".conv." in name and fields.get("upsampling") == "shuffle":
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
        if fields.get("norm") == "batch":
            for module in net.modules():
                if isinstance(module, BatchNorm):
                    module.momentum = 1.0
            net.train()(0.5 + torch.randn(2, 3, 32, 32, generator=generator))
            net.eval()
        if fields.get("output") != "tanh":
            # As after training: levels, not a hundredth of one.
            net.head.conv.weight.mul_(30 if fields.get("pixels") == RAW else 1)
            net.head.conv.bias.add_(120 if fields.get("pixels") == RAW else 0)
    return net


def check_bits_of_parts(conv, window_NCHW):
    """Check that rows have the same bits however a map is divided among calls of a convolution."""
    border = conv.reach - 1
    height, width = window_NCHW.shape[2] - border, window_NCHW.shape[3] - border
    (whole_NCHW,) = conv(window_NCHW)
    group = conv.rows_per_group(width)
    for first in range(0, height, group):
        for last in {min(first + group, height), min(first + 2 * group, height), height}:
            (part_NCHW,) = conv(window_NCHW[:, :, first : last + border])
            assert torch.equal(part_NCHW, whole_NCHW[:, :, first:last])
