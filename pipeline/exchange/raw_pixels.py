"""The same network on the scale of 0 to 255: its pre- and post-processing inside its first and last convolution."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.nn.pixel_convention import RAW
from pipeline.nn.transformer_net import TransformerNet


def with_raw_pixels(net: TransformerNet) -> TransformerNet:
    """Return a copy that takes and gives levels of 0 to 255, red first; exact up to rounding.

    Reflection padding and a scale and shift per channel can be done in either order, so the shift of the input becomes
    a bias of the first convolution, without an error at the border. A tanh cannot be passed: its scale stays with
    the network, in ``architecture.pixels.output_scale``.

    Raises:
        ValueError: a tanh of another scale for each channel.
    """
    pixels, is_linear = net.architecture.pixels, net.architecture.output == "linear"
    if not is_linear and pixels.normalisation != "none":
        raise ValueError("the network ends in a tanh on ImageNet's scale")
    raw = RAW if is_linear else replace(RAW, output_scale=pixels.output_scale)
    folded = TransformerNet(replace(net.architecture, pixels=raw))
    state_dict = {key: tensor.detach().cpu().to(torch.float32, copy=True) for key, tensor in net.state_dict().items()}
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (pixels.mean, pixels.std))
    order = list(pixels.channels)

    weight_OIHW, bias_O = _parameters(state_dict, "stem")
    weight_OIHW = weight_OIHW[:, order] / std.view(1, 3, 1, 1)
    bias_O = bias_O - (weight_OIHW.sum(dim=(2, 3)) * mean).sum(dim=1)
    _put(state_dict, "stem", weight_OIHW * pixels.input_scale, bias_O)

    weight_OIHW, bias_O = (parameter[order] for parameter in _parameters(state_dict, "head"))
    if is_linear:
        weight_OIHW = weight_OIHW * std.view(3, 1, 1, 1) * pixels.output_scale
        bias_O = (bias_O * std + mean) * pixels.output_scale
    _put(state_dict, "head", weight_OIHW, bias_O)
    folded.load_state_dict(state_dict)
    return folded.eval()


def _parameters(state_dict: dict[str, Tensor], block: str) -> tuple[Tensor, Tensor]:
    return state_dict[f"{block}.conv.weight"].double(), state_dict[f"{block}.conv.bias"].double()


def _put(state_dict: dict[str, Tensor], block: str, weight_OIHW: Tensor, bias_O: Tensor) -> None:
    state_dict[f"{block}.conv.weight"] = weight_OIHW.float()
    state_dict[f"{block}.conv.bias"] = bias_O.float()
