"""Gives a style image the colours of content images, so that a style is learned without its palette."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-4
"""Added to covariances, so that a grey picture has an inverse; colours are normalised to about unit variance."""


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
