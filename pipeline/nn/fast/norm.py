"""What is done to the raw results of a convolution once their statistics are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.nn.fast.moments import ChannelStatistics
from pipeline.nn.norms import AnyNorm, BatchNorm


@dataclass(frozen=True)
class Norm:
    """The affine part of a norm, whose statistics it takes, and whether a ReLU follows."""

    weight_C: Tensor
    bias_C: Tensor
    epsilon: float
    relu: bool
    shift_C: Tensor | None = None
    """Bias of the convolution that the raw results lack, for norms that do not remove it."""
    group_size: int = 1
    """Neighbouring channels that are normalised together."""
    fixed: ChannelStatistics | None = None
    """Statistics of the raw results that were found in training: none need be taken."""

    @classmethod
    def of(cls, norm: AnyNorm, *, relu: bool, bias_C: Tensor | None) -> Norm:
        """Copy a trained norm; ``bias_C`` is that of the convolution before it, if its results lack one."""
        affine = (norm.weight.detach().float().cpu().clone(), norm.bias.detach().float().cpu().clone())
        if isinstance(norm, BatchNorm):
            mean_C, variance_C = norm.running_mean.float().cpu().clone(), norm.running_var.float().cpu().clone()
            # (x + bias) - mean = x - (mean - bias)
            fixed = ChannelStatistics(mean_C if bias_C is None else mean_C - bias_C, variance_C)
            return cls(*affine, norm.eps, relu, fixed=fixed)
        if isinstance(norm, nn.GroupNorm):
            group_size = norm.num_channels // norm.num_groups
            return cls(*affine, norm.eps, relu, shift_C=bias_C, group_size=group_size)
        return cls(*affine, norm.eps, relu)  # an instance norm subtracts the bias again

    def pooled(self, raw: ChannelStatistics) -> ChannelStatistics:
        """Return what ``apply`` needs, from mean and variance of each channel of the raw results."""
        if self.group_size == 1 and self.shift_C is None:
            return raw
        mean_C, variance_C = pool_groups(raw.mean_C, raw.variance_C, self.shift_C, self.group_size)
        return ChannelStatistics(mean_C, variance_C)

    def apply(self, raw_NCHW: Tensor, statistics: ChannelStatistics) -> Tensor:
        """Return the normalised (1, C, h, w) without the ReLU; parameters stay float32 throughout."""
        normal_NCHW: Tensor = torch.native_batch_norm(
            raw_NCHW,
            self.weight_C,
            self.bias_C,
            statistics.mean_C,
            statistics.variance_C,
            False,
            0.0,
            self.epsilon,
        )[0]
        return normal_NCHW


def pool_groups(mean: Tensor, variance: Tensor, shift_C: Tensor | None, group_size: int) -> tuple[Tensor, Tensor]:
    """Turn statistics of channels into those of groups of neighbouring channels, of equal numbers of pixels.

    Args:
        mean: (..., C) float32 of results without their bias.
        variance: (..., C) float32, biased.
        shift_C: (C,) float32 bias, or None.
        group_size: channels in a group; divides C.
    Returns:
        (..., C) float32 each: the mean, less the bias, and the variance that every channel of a group shares.
    """
    shift_C = torch.zeros_like(mean) if shift_C is None else shift_C.to(mean.device)
    groups = (*mean.shape[:-1], -1, group_size)
    shifted = (mean.double() + shift_C).view(groups)
    centre = shifted.mean(dim=-1, keepdim=True)
    spread = (variance.double().view(groups) + (shifted - centre).square()).mean(dim=-1, keepdim=True)
    pooled_mean = centre.expand_as(shifted).reshape(mean.shape) - shift_C
    return pooled_mean.float(), spread.expand_as(shifted).reshape(mean.shape).float()
