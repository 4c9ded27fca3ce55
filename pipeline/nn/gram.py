"""Gram matrices: how often filters fire together, whatever the place."""

from __future__ import annotations

from typing import Any

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
    gram_NCC: Tensor = _Gram.apply(features_NCHW)
    return gram_NCC


class _Gram(torch.autograd.Function):
    """The product with an explicit derivative: one product instead of two and a sum of transposed copies.

    Saves the features in their own precision, not their float32 copy.
    """

    @staticmethod
    def forward(ctx: Any, features_NCHW: Tensor) -> Tensor:
        ctx.save_for_backward(features_NCHW)
        _, channels, height, width = features_NCHW.shape
        # Autocast would run the product in bfloat16, whose 8 bits lose small correlations.
        with torch.autocast(features_NCHW.device.type, enabled=False):
            flat_NPC = _by_pixel(features_NCHW.float())
            return torch.bmm(flat_NPC.transpose(1, 2), flat_NPC) / (channels * height * width)

    @staticmethod
    def backward(ctx: Any, *gradients_NCC: Tensor) -> Tensor:
        (features_NCHW,) = ctx.saved_tensors
        num, channels, height, width = features_NCHW.shape
        symmetric_NCC = (gradients_NCC[0] + gradients_NCC[0].transpose(1, 2)) / (channels * height * width)
        # The result has the features' precision either way; only the sums of the forward pass need more.
        with torch.autocast(features_NCHW.device.type, enabled=False):
            flat_NPC = torch.bmm(_by_pixel(features_NCHW), symmetric_NCC.to(features_NCHW.dtype))
        return flat_NPC.view(num, height, width, channels).permute(0, 3, 1, 2)


def _by_pixel(features_NCHW: Tensor) -> Tensor:
    """Return (N, H*W, C); a view of channels-last features."""
    return features_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
