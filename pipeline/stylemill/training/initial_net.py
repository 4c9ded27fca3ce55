"""The network before the first step: random numbers, a style model's weights, or a network that learns further styles.

A network of several styles begins with the same norms for all of them. One that learns further styles (``--add-to``)
begins each at the nearest style that it has, and learns the norms alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import perceptual_loss
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_file import OWN_PARTS, split_styles
from stylemill.style_model import from_bytes, shared_network
from stylemill.training.config import TrainConfig
from stylemill.training.train_step import ReducedPrecisionNet, StepSetup


def initial_net(config: TrainConfig, start: bytes | None, device: torch.device) -> TransformerNet:
    """Return the network before the first step.

    Args:
        config: of the run.
        start: file of the style model to start from or to add styles to; None for random weights of the config's seed.
        device: of the network.
    """
    num_styles = len(config.style_names)
    if start is None:
        architecture = Architecture(
            width=config.width, upsampling=config.upsampling, norm=config.norm, residual=config.residual
        )
        net = TransformerNet(architecture, num_styles=num_styles)
        net.init_weights(config.seed)
    else:
        first = split_styles(start, source=config.add_to or config.start)[0]
        model = from_bytes(first, source=config.add_to or config.start)
        net = model.build_network() if num_styles == 1 else shared_network([model] * num_styles)
    if config.add_to is not None:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(OWN_PARTS in name)
    return net.train().to(device).to(memory_format=torch.channels_last)


@torch.no_grad()
def begin_at_nearest(
    net: TransformerNet, existing: bytes, source: str, setup: StepSetup, samples: Callable[[], Tensor]
) -> None:
    """Give each new style the norms of the existing style whose pictures are nearest to it.

    Args:
        net: of the new styles; its norms are overwritten.
        existing: file of the styles to choose from.
        source: location of the file, for messages.
        setup: loss and targets of the new styles.
        samples: returns (N, 3, H, W) ImageNet-normalised float32 photographs to compare on.
    """
    files = split_styles(existing, source=source)
    norms = [_norms(from_bytes(file, source=source).state_dict) for file in files]
    chosen = [0] * net.num_styles
    if len(files) > 1:
        content_NCHW = samples().to(setup.dtype)
        losses_SE = [[0.0] * len(files) for _ in range(net.num_styles)]
        for number, file in enumerate(files):
            painter = ReducedPrecisionNet(from_bytes(file, source=source).build_network(), setup.dtype)
            painted_NCHW = painter.to(content_NCHW.device)(content_NCHW)
            for style in range(net.num_styles):
                target = setup.target_for(content_NCHW, torch.full((len(content_NCHW),), style))
                terms = perceptual_loss(setup.loss_network, painted_NCHW, content_NCHW, target, LossWeights())
                losses_SE[style][number] = float(terms.style)
        chosen = [min(range(len(files)), key=losses_E.__getitem__) for losses_E in losses_SE]
    for name, parameter in net.named_parameters():
        if OWN_PARTS in name:
            rows = [norms[number][name].float() for number in chosen]
            parameter.copy_(torch.stack(rows) if net.num_styles > 1 else rows[0])


def _norms(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if OWN_PARTS in key}
