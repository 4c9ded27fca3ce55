"""Checkpoints of four well-known implementations with random weights, and each one's own arithmetic.

The evaluations call nothing of this project: only torch's functions on the state dict, with the padding, the order of
norm and ReLU, and the pre- and post-processing that the repository's own network and script have.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

CHANNELS = {"stem": (3, 32, 9), "down1": (32, 64, 3), "down2": (64, 128, 3), "res": (128, 128, 3)}
UPS = {"up1": (128, 64, 3), "up2": (64, 32, 3), "head": (32, 3, 9)}
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Weights:
    """Draws parameters into a state dict; scaled down in all channels to keep the tests quick."""

    def __init__(self, seed, divisor=4):
        self.generator, self.divisor, self.state = torch.Generator().manual_seed(seed), divisor, {}

    def conv(self, key, kind, transposed=False):
        sizes = {**CHANNELS, **UPS}[kind]
        inputs, outputs = (size if size == 3 else size // self.divisor for size in sizes[:2])
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        bound = (inputs * sizes[2] ** 2) ** -0.5
        weight = torch.rand(*shape, sizes[2], sizes[2], generator=self.generator)
        self.state[key + ".weight"] = (2 * weight - 1) * bound
        self.state[key + ".bias"] = 0.3 * torch.randn(outputs, generator=self.generator)

    def norm(self, key, kind, running=False):
        channels = {**CHANNELS, **UPS}[kind][1] // self.divisor
        self.state[key + ".weight"] = 1 + 0.3 * torch.randn(channels, generator=self.generator)
        self.state[key + ".bias"] = 0.3 * torch.randn(channels, generator=self.generator)
        if running:
            self.state[key + ".running_mean"] = torch.randn(channels, generator=self.generator)
            self.state[key + ".running_var"] = torch.rand(channels, generator=self.generator) + 0.5


def conv(state, key, x, stride=1):
    weight = state[key + ".weight"]
    pad = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), weight, state[key + ".bias"], stride=stride)


def norm(state, key, x):
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    column = state[key + ".weight"].view(1, -1, 1, 1), state[key + ".bias"].view(1, -1, 1, 1)
    return (x - mean) / (variance + 1e-5).sqrt() * column[0] + column[1]


def doubled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def pixels(image_HWC):
    return torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float()


def hwc(x):
    return x[0].permute(1, 2, 0).numpy()


def examples_checkpoint(seed=0, running=False, divisor=4):
    """pytorch/examples fast_neural_style; with ``running`` as torch 0.3 saved it."""
    weights = Weights(seed, divisor)
    for number, kind in enumerate(("stem", "down1", "down2"), 1):
        weights.conv(f"conv{number}.conv2d", kind)
        weights.norm(f"in{number}", kind, running)
    for block in range(1, 6):
        for half in (1, 2):
            weights.conv(f"res{block}.conv{half}.conv2d", "res")
            weights.norm(f"res{block}.in{half}", "res", running)
    for number, kind in enumerate(("up1", "up2", "head"), 1):
        weights.conv(f"deconv{number}.conv2d", kind)
        if kind != "head":
            weights.norm(f"in{number + 3}", kind, running)
    weights.state["deconv3.conv2d.bias"] += 128
    weights.state["deconv3.conv2d.weight"] *= 60
    return weights.state


def examples_network(state, x):
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        x = norm(state, f"in{number}", conv(state, f"conv{number}.conv2d", x, stride)).relu()
    for block in range(1, 6):
        inner = norm(state, f"res{block}.in1", conv(state, f"res{block}.conv1.conv2d", x)).relu()
        x = x + norm(state, f"res{block}.in2", conv(state, f"res{block}.conv2.conv2d", inner))
    for number in (1, 2):
        x = norm(state, f"in{number + 3}", conv(state, f"deconv{number}.conv2d", doubled(x))).relu()
    return conv(state, "deconv3.conv2d", x)


def examples_values(state, image_HWC):
    """ToTensor and times 255 in, clamped levels out."""
    return hwc(examples_network(state, pixels(image_HWC)))


def gordicaleksa_checkpoint(seed=1):
    weights = Weights(seed)
    for number, kind in enumerate(("stem", "down1", "down2"), 1):
        weights.conv(f"conv{number}.conv2d", kind)
        weights.norm(f"in{number}", kind)
    for block in range(1, 6):
        for half in (1, 2):
            weights.conv(f"res{block}.conv{half}.conv2d", "res")
            weights.norm(f"res{block}.in{half}", "res")
    for number, kind in enumerate(("up1", "up2"), 1):
        weights.conv(f"up{number}.conv2d.conv2d", kind)
        weights.norm(f"in{number + 3}", kind)
    weights.conv("up3.conv2d", "head")
    return {
        "commit_hash": "0" * 40,
        "content_weight": 1e0,
        "style_weight": 4e5,
        "tv_weight": 0,
        "num_of_datapoints": 165_568,
        "state_dict": weights.state,
    }


def gordicaleksa_values(checkpoint, image_HWC):
    """ImageNet-normalised values of [0, 1] in, the same out."""
    state = checkpoint["state_dict"]
    x = (pixels(image_HWC) / 255 - MEAN) / STD
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        x = norm(state, f"in{number}", conv(state, f"conv{number}.conv2d", x, stride)).relu()
    for block in range(1, 6):
        inner = norm(state, f"res{block}.in1", conv(state, f"res{block}.conv1.conv2d", x)).relu()
        x = norm(state, f"res{block}.in2", conv(state, f"res{block}.conv2.conv2d", inner)) + x
    for number in (1, 2):
        x = norm(state, f"in{number + 3}", conv(state, f"up{number}.conv2d.conv2d", doubled(x))).relu()
    return hwc((conv(state, "up3.conv2d", x) * STD + MEAN) * 255)


def eriklindernoren_checkpoint(seed=2):
    weights = Weights(seed)
    for number, kind in ((0, "stem"), (1, "down1"), (2, "down2"), (8, "up1"), (9, "up2")):
        weights.conv(f"model.{number}.block.1", kind)
        weights.norm(f"model.{number}.norm", kind)
    for block in range(3, 8):
        for half in (0, 1):
            weights.conv(f"model.{block}.block.{half}.block.1", "res")
            weights.norm(f"model.{block}.block.{half}.norm", "res")
    weights.conv("model.10.block.1", "head")
    return weights.state


def eriklindernoren_values(state, image_HWC):
    """ImageNet-normalised values of [0, 1] in, the same out."""
    x = (pixels(image_HWC) / 255 - MEAN) / STD
    for number, stride in ((0, 1), (1, 2), (2, 2)):
        x = norm(state, f"model.{number}.norm", conv(state, f"model.{number}.block.1", x, stride)).relu()
    for block in range(3, 8):
        key = f"model.{block}.block"
        inner = norm(state, f"{key}.0.norm", conv(state, f"{key}.0.block.1", x)).relu()
        x = norm(state, f"{key}.1.norm", conv(state, f"{key}.1.block.1", inner)) + x
    for number in (8, 9):
        x = norm(state, f"model.{number}.norm", conv(state, f"model.{number}.block.1", doubled(x))).relu()
    return hwc((conv(state, "model.10.block.1", x) * STD + MEAN) * 255)


def rrmina_checkpoint(seed=3, is_tanh=False):
    weights = Weights(seed)
    for number, kind in ((0, "stem"), (2, "down1"), (4, "down2")):
        weights.conv(f"ConvBlock.{number}.conv_layer", kind)
        weights.norm(f"ConvBlock.{number}.norm_layer", kind)
    for block in range(5):
        for half in (1, 2):
            weights.conv(f"ResidualBlock.{block}.conv{half}.conv_layer", "res")
            weights.norm(f"ResidualBlock.{block}.conv{half}.norm_layer", "res")
    for number, kind in ((0, "up1"), (2, "up2")):
        weights.conv(f"DeconvBlock.{number}.conv_transpose", kind, transposed=True)
        weights.norm(f"DeconvBlock.{number}.norm_layer", kind)
    weights.conv("DeconvBlock.4.conv_layer", "head")
    if not is_tanh:
        weights.state["DeconvBlock.4.conv_layer.weight"] *= 60
        weights.state["DeconvBlock.4.conv_layer.bias"] += 128
    return weights.state


def rrmina_values(state, image_HWC, tanh_scale=None):
    """Blue first, 0 to 255, in and out (cv2 reads and writes)."""
    x = pixels(image_HWC[:, :, ::-1])
    for number, stride in ((0, 1), (2, 2), (4, 2)):
        key = f"ConvBlock.{number}"
        x = norm(state, f"{key}.norm_layer", conv(state, f"{key}.conv_layer", x, stride)).relu()
    for block in range(5):
        key = f"ResidualBlock.{block}"
        inner = norm(state, f"{key}.conv1.norm_layer", conv(state, f"{key}.conv1.conv_layer", x)).relu()
        x = norm(state, f"{key}.conv2.norm_layer", conv(state, f"{key}.conv2.conv_layer", inner)) + x
    for number in (0, 2):
        key = f"DeconvBlock.{number}"
        weight, bias = state[f"{key}.conv_transpose.weight"], state[f"{key}.conv_transpose.bias"]
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        x = norm(state, f"{key}.norm_layer", x).relu()
    x = conv(state, "DeconvBlock.4.conv_layer", x)
    if tanh_scale is not None:
        x = x.tanh() * tanh_scale
    return np.ascontiguousarray(hwc(x)[:, :, ::-1])
