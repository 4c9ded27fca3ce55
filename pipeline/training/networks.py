"""The networks of a training run: the one in training, and its teacher."""

from __future__ import annotations

import torch

from pipeline.nn.transformer_net import Architecture
from pipeline.style_model import from_bytes
from pipeline.training.config import TrainConfig
from pipeline.training.reduced import ReducedNet


def architecture_of(config: TrainConfig) -> Architecture:
    """Return the shape of the network that a config asks for."""
    return Architecture(width=config.width, upsampling=config.upsampling, norm=config.norm, residual=config.residual)


def frozen_teacher(model: bytes, source: str, dtype: torch.dtype) -> ReducedNet:
    """Return a style model's network, ready to be learned from: in eval mode, without gradients.

    Args:
        model: the style model's file.
        source: where it came from, for messages.
        dtype: of its activations.
    """
    net = from_bytes(model, source=source).build_network().to(memory_format=torch.channels_last)
    return ReducedNet(net.requires_grad_(False), dtype).eval()
