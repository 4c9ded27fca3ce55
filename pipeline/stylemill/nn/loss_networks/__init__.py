"""Loss networks: ``vgg16`` and ``vgg19``, and ``pyramid``, which needs no weights. All are frozen."""

from __future__ import annotations

from typing import cast

import torch

from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LAYER_WEIGHTS, LayerWeights


def build_loss_network(
    name: str,
    *,
    weights: bytes | None = None,
    source: str | None = None,
    layers: LayerWeights | None = None,
    device: str | torch.device = "cpu",
) -> LossNetwork:
    """Return a frozen loss network.

    Args:
        name: ``pyramid``, ``vgg16`` or ``vgg19``.
        weights: a file of VGG weights, see ``weights.find_vgg_weights``; the pyramid needs none.
        source: location of ``weights``, for messages.
        layers: what the loss compares; by default the network's entry in LAYER_WEIGHTS.
        device: of the network.
    Raises:
        ConfigError: the weights belong to another network.
        ValueError: an unknown name, or a VGG without weights.
    """
    if name not in LAYER_WEIGHTS:
        raise ValueError(f"unknown loss network {name!r}")
    if name == "pyramid":
        return PyramidLossNetwork(layers or LAYER_WEIGHTS[name]).to(device)
    if weights is None:
        raise ValueError(f"{name} needs weights")
    from stylemill.nn.loss_networks.vgg import VggName, build_vgg

    vgg = build_vgg(cast("VggName", name), weights, source, layers)
    return vgg.to(memory_format=torch.channels_last).to(device)
