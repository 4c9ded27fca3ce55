"""Architectures beside the default one, with weights, biases and norms that are not all alike."""

from __future__ import annotations

import torch

from stylemill.nn.architecture import RAW, PixelConvention
from stylemill.nn.transformer_net import Architecture, BatchNorm, TransformerNet

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
