"""One set of statistics for a whole library: instance norms become norms whose mean and variance are the library's.

An instance norm takes mean and variance of each image by itself, so the same coat may become blue in one picture and
gold in the next, depending on what else is there. With the statistics of a sample of the library, all of its pictures
are one image to the network, and equal parts are painted alike.

Source: the statistics of a batch norm (Ioffe and Szegedy 2015, arXiv:1502.03167), of a network that was trained with
instance norms, over one batch that represents the library.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylemill.nn.transformer_net import ConvBlock, ResidualBlock, TransformerNet

_EPSILON = 1e-5


@torch.inference_mode()
def library_statistics(net: TransformerNet, photos: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the running statistics that a batch norm has in the place of each instance norm.

    Args:
        net: with instance norms, of one style, in eval mode.
        photos: a sample of the library, each (1, 3, H, W) ImageNet-normalised float32, H and W multiples of 4 and at
            least 16; held in memory together, 64 bytes for each pixel at half width.
    Returns:
        (C,) float32 tensors by the keys of the batch norms' buffers: ``stem.norm.running_mean``.
    """
    statistics: dict[str, Tensor] = {}
    features = [net.to_own_pixels(photo_NCHW) for photo_NCHW in photos]
    for name, block in net.named_children():
        features = _through(name, block, features, statistics)
    return statistics


def _through(name: str, block: nn.Module, features: list[Tensor], statistics: dict[str, Tensor]) -> list[Tensor]:
    if isinstance(block, ResidualBlock):
        inner = _through(f"{name}.block1", block.block1, features, statistics)
        inner = _through(f"{name}.block2", block.block2, inner, statistics)
        return [before + after for before, after in zip(features, inner, strict=True)]
    if not isinstance(block, ConvBlock):
        raise TypeError(f"{name} is a {type(block).__name__}")
    if block.norm is None:
        return features  # the head, behind which there is no norm
    raw = [block.convolve(map_NCHW) for map_NCHW in features]
    mean_C, variance_C = _pooled(raw)
    statistics |= {f"{name}.norm.running_mean": mean_C, f"{name}.norm.running_var": variance_C}
    scale_C = block.norm.weight / (variance_C + _EPSILON).sqrt()
    shift_C = block.norm.bias - mean_C * scale_C
    normal = [map_NCHW * scale_C[:, None, None] + shift_C[:, None, None] for map_NCHW in raw]
    return [map_NCHW.relu_() for map_NCHW in normal] if block.relu else normal


def _pooled(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over all pixels of all maps, each map with the same weight."""
    means_NC = torch.stack([map_NCHW.mean(dim=(0, 2, 3)) for map_NCHW in maps])
    variances_NC = torch.stack([map_NCHW.var(dim=(0, 2, 3), correction=0) for map_NCHW in maps])
    return means_NC.mean(dim=0), variances_NC.mean(dim=0) + means_NC.var(dim=0, correction=0)
