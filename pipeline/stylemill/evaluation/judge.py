"""The judge: a loss network and a style image, loaded once, that compute the losses of any picture.

The helpers at the end read what flags name and prepare pictures; measuring and direct optimisation share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stylemill.config import digest, to_mapping
from stylemill.errors import ConfigError, ImageError
from stylemill.evaluation.config import JudgeConfig
from stylemill.evaluation.image_metrics import Image
from stylemill.images.isolation.client import decode_isolated
from stylemill.nn.loss_networks.weights import load_loss_network
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import (
    StyleTarget,
    content_term,
    gram_matrix,
    grid_loss,
    style_distances,
    style_target,
    style_term,
    total_variation_loss,
)
from stylemill.nn.pixels import normalize
from stylemill.storage import Storage, resolve
from stylemill.storage.user_errors import reading_input

if TYPE_CHECKING:
    from torch import Tensor

    from stylemill.nn.loss_networks.features import LossNetwork


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Loss terms of one picture, unweighted except ``total``."""

    total: float
    content: float
    style: float
    style_by_layer: tuple[float, ...]
    """Distances of the palette and of the Gram matrices, from fine to coarse; ``style`` is their weighted mean."""
    total_variation: float
    grid: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A loaded loss network with a style and the weights of the loss terms."""

    network: LossNetwork
    target: StyleTarget
    weights: LossWeights
    style_HWC: Image
    """(H, W, 3) uint8 style image at the size at which the loss uses it."""
    digest: str
    """Hash of everything the losses depend on except the pictures: losses under equal digests are comparable."""

    def losses(self, result_HWC: Image, source_HWC: Image) -> Losses:
        """Return the losses of a picture that was made from a source of the same size, both (H, W, 3) uint8."""
        with torch.no_grad():
            result_NCHW, source_NCHW = to_batch(result_HWC), to_batch(source_HWC)
            found = self.network.features(result_NCHW)
            wanted = self.network.content(source_NCHW)
            content = float(content_term(self.network, found.content, wanted))
            grams = {name: gram_matrix(layer) for name, layer in found.style.items()}
            distances = style_distances(grams, self.target, result_NCHW)
            style = float(style_term(self.network, distances))
            variation, grid = float(total_variation_loss(result_NCHW)), float(grid_loss(result_NCHW))
        weights = self.weights
        total = weights.content * content + weights.style * style
        total += weights.total_variation * variation + weights.grid * grid
        return Losses(
            total=total,
            content=content,
            style=style,
            style_by_layer=tuple(float(distance) for distance in distances.values()),
            total_variation=variation,
            grid=grid,
        )


def to_batch(image_HWC: Image) -> Tensor:
    """Return an (H, W, 3) uint8 picture as a (1, 3, H, W) ImageNet-normalised float32 batch."""
    return normalize(torch.from_numpy(np.array(image_HWC))[None])


def load_judge(storage: Storage, config: JudgeConfig, *, style_image: str) -> Judge:
    """Load the loss network and the style image.

    Args:
        storage: storage of the style image and of the weights.
        config: settings of the loss.
        style_image: location of the style image.

    Raises:
        ConfigError: the style image or the weights cannot be read.
    """
    data = read_named(storage, "style_image", style_image)
    try:
        source = decode_isolated(data)
    except ImageError as failure:
        cure = "give a JPEG or PNG"
        raise ConfigError("style_image", style_image, f"cannot be decoded ({failure})", cure) from None
    style_HWC = at_size(source.image_HWC, config.style_size_px, enlarge=True)
    network, _ = load_loss_network(
        config.loss_network,
        config.loss_weights,
        lambda uri: read_named(storage, "loss_weights", uri),
        config.layer_weights,
    )
    parts = {name: value for name, value in to_mapping(config).items() if name not in ("style_image", "loss_weights")}
    parts |= {"network": network.digest(), "style": [list(style_HWC.shape), style_HWC.tobytes().hex()]}
    return Judge(
        network=network,
        target=style_target(network, to_batch(style_HWC)),
        weights=LossWeights(
            content=config.content_weight,
            style=config.style_weight,
            total_variation=config.tv_weight,
            grid=config.grid_weight,
        ),
        style_HWC=style_HWC,
        digest=digest(parts),
    )


def at_size(image_HWC: Image, short_side_px: int, *, enlarge: bool = False) -> Image:
    """Return a picture scaled to a shorter side in pixels; a smaller one keeps its size unless ``enlarge`` is set."""
    from stylemill.images.controls import resize, scaled_size

    height_px, width_px = image_HWC.shape[:2]
    scale = short_side_px / min(height_px, width_px)
    if scale >= 1 and not enlarge:
        return image_HWC
    return resize(image_HWC, *scaled_size(width_px, height_px, scale, least_px=1))


def read_named(storage: Storage, field: str, uri: str) -> bytes:
    """Return the bytes of a location that a flag gives.

    Raises:
        ConfigError: they cannot be read; the error names the flag.
    """
    with reading_input(field, uri, expected="a file"):
        return storage.read_bytes(resolve(uri))
