"""Loss networks: ``pyramid``, which needs no weights, ``vgg16`` and ``vgg19``. All are frozen."""

from __future__ import annotations

from typing import cast

import torch

from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork


def build_loss_network(
    name: str, *, weights: bytes | None = None, source: str | None = None, device: str | torch.device = "cpu"
) -> LossNetwork:
    """Return a frozen loss network.

    Args:
        name: ``pyramid``, ``vgg16`` or ``vgg19``.
        weights: a file of VGG weights; None takes torchvision's.
        source: location of ``weights``, for messages.
        device: of the network.
    Raises:
        ConfigError: the weights belong to another network or cannot be downloaded.
        ValueError: an unknown name.
    """
    if name == "pyramid":
        return PyramidLossNetwork().to(device)
    if name not in ("vgg16", "vgg19"):
        raise ValueError(f"unknown loss network {name!r}")
    from stylemill.nn.loss_networks.vgg import VggName, build_vgg

    vgg = build_vgg(cast("VggName", name), weights, source)
    return vgg.to(memory_format=torch.channels_last).to(device)
