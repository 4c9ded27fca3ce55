"""Mean and variance of a feature map that is seen piece by piece, without losing digits.

What is done to the raw results of a convolution once their statistics are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stylemill.nn.transformer_net import AnyNorm, BatchNorm

_Rows = NDArray[np.float64]

MAX_CHUNK_PIXELS = {torch.float32: 2048, torch.bfloat16: 16_384}
"""Terms that torch adds up one by one in float32, after which float64 goes on.

Measured on 512 x 512 normal deviates whose mean is 3 deviations from zero: the variance is off by 5e-7 of
its size with 2,048 terms, 6e-6 with 16,384, 5e-5 without chunks. A bfloat16 map is itself good to 4e-3.
"""


@dataclass(frozen=True)
class PieceSums:
    """Per-channel sums of one piece of a feature map, as one pass over it gives them."""

    count: int
    """Pixels in the piece."""
    shift_C: Tensor
    """Some value near the mean, subtracted while summing; float32."""
    sum_C: Tensor
    """Sum of x; float32."""
    shifted_square_sum_C: Tensor
    """Sum of x (x - shift); float32."""


def sum_piece(piece_NCHW: Tensor) -> list[PieceSums]:
    """Sum one piece in one pass over its pixels, in chunks short enough for float32 sums.

    The reduction is the one that the backward pass of a batch norm makes: with the piece for gradient and
    input, ``shift`` for mean and 1 for the inverse deviation it gives the sums of x and of x (x - shift).
    Nothing else in torch makes both over channels-last bfloat16 at the speed of memory; ``var_mean``
    takes twenty times as long.

    Args:
        piece_NCHW: (1, C, h, w) channels-last, float32 or bfloat16.
    """
    _, channels, _, width = piece_NCHW.shape
    ones_C = torch.ones(channels)
    shift_C = piece_NCHW[0, :, 0].t().sum(0).float().div_(width)
    sums = []
    for chunk_NCHW in piece_NCHW.split(max(1, MAX_CHUNK_PIXELS[piece_NCHW.dtype] // width), dim=2):
        _, shifted_square_sum_C, sum_C = torch.ops.aten.native_batch_norm_backward(
            chunk_NCHW, chunk_NCHW, ones_C, shift_C, ones_C, shift_C, ones_C, True, 0.0, [False, True, True]
        )
        sums.append(PieceSums(chunk_NCHW.shape[2] * width, shift_C, sum_C, shifted_square_sum_C))
    return sums


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and biased variance of a whole feature map, which an instance norm subtracts and divides by."""

    mean_C: Tensor
    variance_C: Tensor


class Moments:
    """Running mean and sum of squared deviations per channel, in float64.

    Pieces are merged in the order in which they are given; the same order gives the same bits.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979, formula 2.1b for any number of pieces.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_C: NDArray[np.float64] = np.zeros(0)
        self.deviations_C: NDArray[np.float64] = np.zeros(0)

    def add(self, pieces: Sequence[PieceSums]) -> None:
        """Merge the sums of further pieces."""
        if not pieces:
            return
        counts = np.array([piece.count for piece in pieces], dtype=np.float64)[:, None]
        shifts = _float64([piece.shift_C for piece in pieces])
        means = _float64([piece.sum_C for piece in pieces]) / counts
        squares = _float64([piece.shifted_square_sum_C for piece in pieces])
        self._merge(counts, means, np.maximum(squares - counts * means * (means - shifts), 0.0))

    def merge(self, others: Sequence[Moments]) -> None:
        """Merge the moments of further parts."""
        self._merge(
            np.array([other.count for other in others], dtype=np.float64)[:, None],
            np.stack([other.mean_C for other in others]),
            np.stack([other.deviations_C for other in others]),
        )

    def _merge(self, counts: _Rows, means: _Rows, deviations: _Rows) -> None:
        if self.count:
            counts = np.concatenate(([[self.count]], counts))
            means = np.concatenate((self.mean_C[None], means))
            deviations = np.concatenate((self.deviations_C[None], deviations))
        total = counts.sum()
        self.mean_C = (counts * means).sum(axis=0) / total
        self.deviations_C = (deviations + counts * (means - self.mean_C) ** 2).sum(axis=0)
        self.count = int(total)

    def statistics(self) -> ChannelStatistics:
        """Return the (C,) mean and variance in float32."""
        variance_C = self.deviations_C / self.count
        return ChannelStatistics(torch.from_numpy(self.mean_C).float(), torch.from_numpy(variance_C).float())


def _float64(rows: Sequence[Tensor]) -> _Rows:
    return torch.stack(list(rows)).numpy().astype(np.float64)


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
