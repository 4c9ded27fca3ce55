"""The norms that may follow a convolution, each affine per channel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.architecture import Norm
from pipeline.nn.instance_norm import instance_norm

GROUPS = 8
"""Groups of a group norm, or as many as divide the channels."""

MOMENTUM = 0.1
"""Share of a batch's statistics in the running ones."""


class BatchNorm(nn.Module):
    """A batch norm without a counter of batches, which ignores batches that are not finite.

    Args:
        num_channels: C.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-5, MOMENTUM
        self.weight, self.bias = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def reset_parameters(self) -> None:
        """Scale by 1, shift by 0, and forget the statistics."""
        for ones in (self.weight, self.running_var):
            nn.init.ones_(ones)
        for zeros in (self.bias, self.running_mean):
            nn.init.zeros_(zeros)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Normalise by the batch's own statistics in training, by the running ones otherwise."""
        mean_C, variance_C = self.running_mean, self.running_var
        if self.training:
            mean_C, variance_C = mean_C.clone(), variance_C.clone()
        normal_NCHW = F.batch_norm(
            features_NCHW, mean_C, variance_C, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        if self.training and bool(torch.isfinite(mean_C).all() & torch.isfinite(variance_C).all()):
            self.running_mean.copy_(mean_C)
            self.running_var.copy_(variance_C)
        return normal_NCHW


AnyNorm = nn.InstanceNorm2d | BatchNorm | nn.GroupNorm


def build_norm(kind: Norm, num_channels: int) -> AnyNorm:
    """Return a fresh norm over so many channels."""
    if kind == "instance":
        return nn.InstanceNorm2d(num_channels, affine=True)
    if kind == "batch":
        return BatchNorm(num_channels)
    return nn.GroupNorm(1 if kind == "layer" else math.gcd(GROUPS, num_channels), num_channels)


def apply_norm(features_NCHW: Tensor, norm: AnyNorm) -> Tensor:
    """Normalise (N, C, H, W) of any float dtype; the shape, the dtype and, for instance norm, the layout stay."""
    if isinstance(norm, nn.InstanceNorm2d):
        return instance_norm(features_NCHW, norm)
    normal_NCHW: Tensor = norm(features_NCHW)
    return normal_NCHW
