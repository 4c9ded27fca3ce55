"""Gram matrices: how often filters fire together, whatever the place."""

from __future__ import annotations

import torch
from torch import Tensor


def gram_matrix(features_NCHW: Tensor) -> Tensor:
    """Return channel correlations, normalised by C*H*W.

    Args:
        features_NCHW: (N, C, H, W) activations of any float dtype; accumulated in float32.
    Returns:
        (N, C, C) float32.
    Raises:
        ValueError: the input is not 4-D.
    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2.
    """
    if features_NCHW.dim() != 4:
        raise ValueError(f"expected (N, C, H, W), got a tensor of shape {tuple(features_NCHW.shape)}")
    num, channels, height, width = features_NCHW.shape
    # Autocast would run the product in bfloat16, whose 8 bits lose small correlations.
    with torch.autocast(features_NCHW.device.type, enabled=False):
        flat = features_NCHW.float().reshape(num, channels, height * width)
        return torch.bmm(flat, flat.transpose(1, 2)) / (channels * height * width)
