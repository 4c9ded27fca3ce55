"""Colours of style images: compared with those of results, and replaced by those of content images.

A ``Palette`` describes how often a style image has which colours, and ``palette_distance`` how far results are from it.
``with_colors_of`` gives a style image the colours of content images, so that a style is learned without its palette.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_DIRECTIONS = 16
NUM_COLOURS = 4096
"""Most pixels of an image that are compared; more would change the distance by less than a training step does."""
_SEED = 1903
_PALETTE_RIDGE = (0.02, 0.01)
"""Least variance of a whitened colour axis: as a fraction of the largest one, and for styles of one colour."""
_RIDGE = 1e-4
"""Added to covariances, so that a grey picture has an inverse; colours are normalised to about unit variance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Palette:
    """The distribution of colours of one style image, or of one per content image."""

    mean_NC: Tensor
    """(N, 3) mean colour."""
    axes_NDC: Tensor
    """(N, D, 3) directions in which colours are compared, after whitening by the style's covariance."""
    colours_NDP: Tensor
    """(N, D, P) quantiles of the style's colours in every direction."""

    @classmethod
    def joined(cls, palettes: Sequence[Palette]) -> Palette:
        """Return one palette per image from those of single images."""
        return cls(
            mean_NC=torch.cat([palette.mean_NC for palette in palettes]),
            axes_NDC=torch.cat([palette.axes_NDC for palette in palettes]),
            colours_NDP=torch.cat([palette.colours_NDP for palette in palettes]),
        )


def palette_of(style_NCHW: Tensor) -> Palette:
    """Return the palette of style images.

    Args:
        style_NCHW: (N, 3, H, W) ImageNet-normalised, any float dtype.
    """
    colours_NCP = style_NCHW.float().flatten(2)
    mean_NC = colours_NCP.mean(dim=2)
    covariance_NCC = _covariance(colours_NCP - mean_NC[..., None])
    relative, least = _PALETTE_RIDGE
    ridge_N11 = relative * torch.linalg.matrix_norm(covariance_NCC, 2)[:, None, None] + least
    whiten_NCC = _power(covariance_NCC + ridge_N11 * torch.eye(3, device=style_NCHW.device), -0.5)
    # The legacy generator has the same stream everywhere, so that losses are comparable.
    drawn_DC = torch.from_numpy(np.random.RandomState(_SEED).standard_normal((NUM_DIRECTIONS, 3)))
    directions_DC = torch.nn.functional.normalize(drawn_DC, dim=1).float().to(style_NCHW.device)
    axes_NDC = directions_DC @ whiten_NCC
    sorted_NDP = _projected(colours_NCP, mean_NC, axes_NDC)
    return Palette(mean_NC=mean_NC, axes_NDC=axes_NDC, colours_NDP=_quantiles(sorted_NDP, NUM_COLOURS))


def palette_distance(result_NCHW: Tensor, palette: Palette) -> Tensor:
    """Return the sliced Wasserstein distance of results' colours from a palette; float32 scalar.

    Whitening makes rare hues count as much as light and dark, which Gram matrices hardly compare otherwise. A picture
    of the style's mean colour alone is at a distance of up to 1.

    Args:
        result_NCHW: (N, 3, H, W) ImageNet-normalised, any float dtype.
        palette: of one style image, or of N.

    Source: Heitz et al. 2021, arXiv:2006.07229, on whitened colours instead of features.
    """
    colours_NCP = result_NCHW.float().flatten(2)
    num = colours_NCP.shape[2]
    if num > NUM_COLOURS:
        colours_NCP = colours_NCP[:, :, torch.from_numpy(_chosen_pixels(num)).to(colours_NCP.device)]
    with torch.autocast(result_NCHW.device.type, enabled=False):
        found_NDP = _projected(colours_NCP, palette.mean_NC, palette.axes_NDC)
    return (found_NDP - _quantiles(palette.colours_NDP, found_NDP.shape[2])).square().mean()


def _projected(colours_NCP: Tensor, mean_NC: Tensor, axes_NDC: Tensor) -> Tensor:
    """Return (N, D, P): colours, (N, 3, P), in every direction, sorted."""
    return (axes_NDC @ (colours_NCP - mean_NC[..., None])).sort(dim=-1).values


@functools.lru_cache(maxsize=64)
def _chosen_pixels(num: int) -> NDArray[np.int64]:
    """Return NUM_COLOURS of ``num`` indices, always the same ones. Every n-th pixel would be a visible grid."""
    return np.random.RandomState(_SEED).permutation(num)[:NUM_COLOURS]


def _quantiles(sorted_NDP: Tensor, num: int) -> Tensor:
    positions_P = (torch.arange(num, device=sorted_NDP.device) + 0.5) / num * sorted_NDP.shape[2]
    return sorted_NDP[..., positions_P.long()]


def with_colors_of(style_NCHW: Tensor, content_NCHW: Tensor) -> Tensor:
    """Return the style image once per content image, with that image's mean and covariance of colours.

    The map is affine and the same for all pixels. Of all maps that match the covariance it is the symmetric one, which
    moves colours least.

    Args:
        style_NCHW: (1, 3, H, W) ImageNet-normalised style image, any float dtype.
        content_NCHW: (N, 3, h, w) ImageNet-normalised content images.

    Returns:
        (N, 3, H, W) float32.

    Source: Gatys et al. 2017, arXiv:1611.07865, section 5.1 (image analogies' colour transfer).
    """
    style_CP = style_NCHW.float().flatten(2)[0]
    content_NCP = content_NCHW.float().flatten(2)
    style_mean_C1, content_mean_NC1 = style_CP.mean(dim=1, keepdim=True), content_NCP.mean(dim=2, keepdim=True)
    centred_CP = style_CP - style_mean_C1
    whiten_CC = _power(_covariance(centred_CP), -0.5)
    colour_NCC = _power(_covariance(content_NCP - content_mean_NC1), 0.5)
    recoloured_NCP = colour_NCC @ (whiten_CC @ centred_CP) + content_mean_NC1
    return recoloured_NCP.unflatten(2, style_NCHW.shape[2:])


def _covariance(centred_CP: Tensor) -> Tensor:
    return centred_CP @ centred_CP.mT / centred_CP.shape[-1]


def _power(covariance_CC: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive matrix, (..., 3, 3)."""
    values_C, vectors_CC = torch.linalg.eigh(covariance_CC + _RIDGE * torch.eye(3, device=covariance_CC.device))
    powers_C = values_C.clamp(min=_RIDGE) ** exponent
    return (vectors_CC * powers_C[..., None, :]) @ vectors_CC.mT
