"""Conversion of a foreign checkpoint to a style model, and of a network to raw pixels.

``convert`` recognises the layout of a checkpoint by its keys. ``with_raw_pixels`` folds the pre- and post-processing of
a network into its first and last convolution, so that it maps levels of 0 to 255 to levels of 0 to 255, as exported
models do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stylemill import __version__
from stylemill.errors import ConfigError
from stylemill.exchange.checkpoint import ForeignCheckpoint, read_checkpoint
from stylemill.exchange.foreign import LAYOUTS, Layout, closest_layout
from stylemill.nn.architecture import RAW, Architecture
from stylemill.nn.transformer_net import TransformerNet
from stylemill.style_model import StyleModel

BASE_WIDTH = 32
"""Channels of the first convolution at width 1."""
VARIANT_SHARE = 0.5
"""A checkpoint with at least this share of a layout's keys is reported as a variant of it."""
_MAX_KEYS_SHOWN = 4


def convert(data: bytes, *, source: str, name: str, tanh_scale: float | None = None) -> StyleModel:
    """Recognise a checkpoint by its keys and convert it; equal files give equal models.

    Args:
        data: the whole file.
        source: location of the file, for messages.
        name: name of the style.
        tanh_scale: factor after a final tanh, for layouts whose keys do not show it; None if there is no tanh.

    Raises:
        ConfigError: the file cannot be read safely, its layout is unknown, or its shapes do not fit.
    """
    checkpoint = read_checkpoint(data, source=source)
    layout = _recognise(set(checkpoint.tensors), source)
    state_dict = {ours: checkpoint.tensors[theirs] for ours, theirs in layout.keys.items()}
    architecture = _architecture(layout, state_dict, tanh_scale)
    _check_shapes(layout, architecture, state_dict, source)
    # A tensor may be an expanded view of a small storage: it is copied only after its shape is checked.
    weights = {key: tensor.to(torch.float32).contiguous() for key, tensor in state_dict.items()}
    for key, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            problem = f"holds values in {layout.keys[key]} that are not finite"
            raise ConfigError("from", source, problem, "give a checkpoint of a training that did not diverge")
    return StyleModel(
        name=name,
        version=_version(weights),
        architecture=architecture,
        state_dict=weights,
        metadata=_metadata(data, layout, checkpoint),
    )


def _recognise(keys: set[str], source: str) -> Layout:
    layout, differing = closest_layout(keys)
    if not differing:
        return layout
    known = set(layout.keys.values())
    if len(known & keys) < VARIANT_SHARE * len(known):
        some = ", ".join(sorted(keys)[:_MAX_KEYS_SHOWN])
        names = "; ".join(layout.name for layout in LAYOUTS)
        problem = f"has an unknown layout: it holds {len(keys)} tensors such as {some}"
        raise ConfigError("from", source, problem, f"the known layouts are {names}")
    missing, extra = sorted(known - keys), sorted(differing - known)
    parts = [
        f"{word} {', '.join(some[:_MAX_KEYS_SHOWN])}" for word, some in (("lacks", missing), ("adds", extra)) if some
    ]
    problem = f"is almost {layout.name}, but {' and '.join(parts)}"
    raise ConfigError("from", source, problem, "give a checkpoint of that network as it was published")


def _architecture(layout: Layout, state_dict: Mapping[str, Tensor], tanh_scale: float | None) -> Architecture:
    # The published networks have width 1; narrower ones differ in the width alone.
    first = state_dict["stem.conv.weight"]
    width = len(first) / BASE_WIDTH if first.dim() and 0 < len(first) <= 4 * BASE_WIDTH else 1.0
    architecture = Architecture(width=width, upsampling=layout.upsampling, pixels=layout.pixels)
    if tanh_scale is None:
        return architecture
    if not layout.may_end_in_tanh:
        problem = f"does not apply: {layout.name} has no variant that ends in a tanh"
        raise ConfigError("tanh_scale", tanh_scale, problem, "leave it out")
    return replace(architecture, output="tanh", pixels=replace(layout.pixels, output_scale=tanh_scale))


def _check_shapes(layout: Layout, architecture: Architecture, state_dict: Mapping[str, Tensor], source: str) -> None:
    with torch.device("meta"):
        expected = TransformerNet(architecture).state_dict()
    for key, tensor in state_dict.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[key].shape)}"
            problem = f"does not fit: {layout.keys[key]} of {layout.name} has the shape {shapes}"
            raise ConfigError("from", source, problem, "give a checkpoint of that network as it was published")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            problem = f"does not fit: {layout.keys[key]} holds {tensor.dtype}, {tensor.layout}"
            raise ConfigError("from", source, problem, "give a checkpoint whose parameters are plain floats")


def _metadata(data: bytes, layout: Layout, checkpoint: ForeignCheckpoint) -> dict[str, Any]:
    return {
        "imported": {
            "layout": layout.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "notes": checkpoint.notes,
        },
        "stylemill": __version__,
    }


def _version(weights: Mapping[str, Tensor]) -> str:
    sha256 = hashlib.sha256()
    for key in sorted(weights):
        sha256.update(weights[key].numpy().tobytes())
    return sha256.hexdigest()[:12]


def with_raw_pixels(net: TransformerNet) -> TransformerNet:
    """Return a copy whose input and output are levels of 0 to 255, red first; exact up to rounding.

    Reflection padding commutes with a scale and shift per channel, so the shift of the input becomes a bias of the
    first convolution, without an error at the border. A scale cannot be folded through a tanh: it stays in
    ``architecture.pixels.output_scale``.

    Raises:
        ValueError: the tanh would need a different scale for each channel.
    """
    pixels, is_linear = net.architecture.pixels, net.architecture.output == "linear"
    if not is_linear and pixels.normalisation != "none":
        raise ValueError("the network ends in a tanh on ImageNet's scale")
    raw = RAW if is_linear else replace(RAW, output_scale=pixels.output_scale)
    folded = TransformerNet(replace(net.architecture, pixels=raw), num_styles=net.num_styles)
    state_dict = {key: tensor.detach().cpu().to(torch.float32, copy=True) for key, tensor in net.state_dict().items()}
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (pixels.mean, pixels.std))
    order = list(pixels.channels)

    weight_OIHW, bias_O = _parameters(state_dict, "stem")
    weight_OIHW = weight_OIHW[:, order] / std.view(1, 3, 1, 1)
    bias_O = bias_O - (weight_OIHW.sum(dim=(2, 3)) * mean).sum(dim=1)
    _set_parameters(state_dict, "stem", weight_OIHW * pixels.input_scale, bias_O)

    weight_OIHW, bias_O = (parameter[order] for parameter in _parameters(state_dict, "head"))
    if is_linear:
        weight_OIHW = weight_OIHW * std.view(3, 1, 1, 1) * pixels.output_scale
        bias_O = (bias_O * std + mean) * pixels.output_scale
    _set_parameters(state_dict, "head", weight_OIHW, bias_O)
    folded.load_state_dict(state_dict)
    return folded.eval()


def _parameters(state_dict: dict[str, Tensor], block: str) -> tuple[Tensor, Tensor]:
    return state_dict[f"{block}.conv.weight"].double(), state_dict[f"{block}.conv.bias"].double()


def _set_parameters(state_dict: dict[str, Tensor], block: str, weight_OIHW: Tensor, bias_O: Tensor) -> None:
    state_dict[f"{block}.conv.weight"] = weight_OIHW.float()
    state_dict[f"{block}.conv.bias"] = bias_O.float()
