"""Gram matrices: how often filters fire together, whatever the place.

How a loss network looks at a batch in one step: a window of it, at a scale of its own.

What a style network is trained for: content, style, smoothness and no grid, each on a scale of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_weights import LossWeights


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


LEAST_SIDE_PX = 16
"""No view is smaller, whatever its scale: loss networks need so much."""


@dataclass(frozen=True, kw_only=True)
class LossView:
    """A window and a scale, the same for results and content.

    A loss that always looks at the same pixels at the same size is easily satisfied by what nobody would paint:
    lattices with the periods that upsampling repeats, to which it happens to be half blind, and a dark rim that makes
    up for missing colours. From view to view the periods change and the rim comes and goes, so neither pays.

    Source: expectation over transformations as in Athalye et al. 2018, arXiv:1707.07397; random scales as in
    Olah et al. 2017, doi:10.23915/distill.00007.
    """

    scale: float = 1.0
    """Sides of the view over those of the window; at most 1."""
    margin_px: int = 0
    """Rows, and columns, that the window leaves out, on both sides together."""
    top_px: int = 0
    left_px: int = 0
    """Of them, those above and those to the left."""

    def of(self, batch_NCHW: Tensor) -> Tensor:
        """Return the view, (N, C, h, w) in the batch's dtype, smoothed where it is smaller than the window.

        Args:
            batch_NCHW: (N, C, H, W) of any float dtype, sides longer than the margin.
        """
        if self == WHOLE:
            return batch_NCHW  # the gradient of a slice would lose the batch's memory format
        height_px, width_px = (side_px - self.margin_px for side_px in batch_NCHW.shape[2:])
        window_NCHW = batch_NCHW[:, :, self.top_px : self.top_px + height_px, self.left_px : self.left_px + width_px]
        size_px = [max(min(side_px, LEAST_SIDE_PX), round(side_px * self.scale)) for side_px in (height_px, width_px)]
        if size_px == [height_px, width_px]:
            return window_NCHW
        view_NCHW = F.interpolate(window_NCHW.float(), size=size_px, mode="bilinear", antialias=True)
        return view_NCHW.to(batch_NCHW.dtype)


WHOLE = LossView()
"""The batch as it is."""


GRID_WINDOW_PX = 32
"""Side of the windows in which the grid is looked for; wide enough to leave strokes of other periods alone."""


@dataclass(frozen=True)
class LossTerms:
    """Float32 scalars, unweighted except ``total``."""

    content: Tensor
    style: Tensor
    total_variation: Tensor
    grid: Tensor
    total: Tensor


@dataclass(frozen=True)
class StyleTarget:
    """What the style image asks for: one (1, C, C) float32 Gram per style layer, computed once per run."""

    grams: tuple[Tensor, ...]


def style_target(network: LossNetwork, style_NCHW: Tensor) -> StyleTarget:
    """Return the style's Grams.

    Args:
        network: the loss network.
        style_NCHW: (1, 3, H, W) ImageNet-normalised style image.
    """
    with torch.no_grad():
        return StyleTarget(tuple(gram_matrix(layer) for layer in network.features(style_NCHW).style_NCHW))


def content_loss(features_NCHW: Tensor, target_NCHW: Tensor, energy: float) -> Tensor:
    """Return the mean squared difference of features over ``energy``; float32 scalar.

    Args:
        features_NCHW: (N, C, H, W) of the result, any float dtype.
        target_NCHW: (N, C, H, W) of the content image.
        energy: the layer's mean square on images at large. Not that of the target: a flat image has next to none.

    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2, divided by the energy.
    """
    mean: Tensor = _MeanSquare.apply(features_NCHW - target_NCHW)
    return mean / energy


class _MeanSquare(torch.autograd.Function):
    """The mean of squares of (N, C, H, W) in float32, whose derivative stays in the features' own precision."""

    @staticmethod
    def forward(ctx: Any, values_NCHW: Tensor) -> Tensor:
        ctx.save_for_backward(values_NCHW)
        # Channels first: one sum over millions of values would lose four digits.
        norms_NHW = torch.linalg.vector_norm(values_NCHW, dim=1, dtype=torch.float32)
        return norms_NHW.square().mean() / values_NCHW.shape[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values_NCHW,) = ctx.saved_tensors
        return values_NCHW * (gradients[0] * (2 / values_NCHW.numel()))


def style_loss(grams_NCC: tuple[Tensor, ...], target: StyleTarget) -> Tensor:
    """Return the squared distance of Grams relative to the style's own, averaged over layers; float32 scalar.

    Args:
        grams_NCC: (N, C, C) float32 per layer, of the result, finest first. Pictures that are too small for the
            coarsest layers have none of them: what both have is compared.
        target: of the style image.

    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2, each layer divided by the style's energy.
    """
    losses = [
        (gram_NCC - wanted).square().mean() / wanted.square().mean()
        for gram_NCC, wanted in zip(grams_NCC, target.grams, strict=False)
    ]
    return torch.stack(losses).mean()


def total_variation_loss(batch_NCHW: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels, down and across; float32 scalar.

    Args:
        batch_NCHW: (N, 3, H, W) of any float dtype.

    Source: Mahendran and Vedaldi 2015, arXiv:1412.0035, with exponent 2.
    """
    batch_NCHW = batch_NCHW.float()
    down = (batch_NCHW[:, :, 1:] - batch_NCHW[:, :, :-1]).square().mean()
    across = (batch_NCHW[:, :, :, 1:] - batch_NCHW[:, :, :, :-1]).square().mean()
    return down + across


def grid_loss(batch_NCHW: Tensor) -> Tensor:
    """Return the energy at periods of 2 and 4 px, across, down and both; float32 scalar.

    The two nearest upsamplings of the network repeat pixels in twos and fours. What the convolutions behind them make
    of it costs nothing in the other terms: a line on every fourth column looks like brushwork to a Gram matrix.

    Args:
        batch_NCHW: (N, 3, H, W) of any float dtype, sides of at least 32 px.

    Source: a windowed Fourier transform at these frequencies alone; Odena et al. 2016, doi:10.23915/distill.00003.
    """
    filters_PK = _grid_filters(batch_NCHW.device)
    hop_px = GRID_WINDOW_PX // 2
    # Autocast would run the products in bfloat16.
    with torch.autocast(batch_NCHW.device.type, enabled=False):
        across_NCHXK = batch_NCHW.float().unfold(3, GRID_WINDOW_PX, hop_px) @ filters_PK
        waves_NCYXKK = across_NCHXK.unfold(2, GRID_WINDOW_PX, hop_px) @ filters_PK
    # The first filter takes means: both means together are no wave.
    return waves_NCYXKK.square().flatten(-2)[..., 1:].sum(dim=-1).mean()


def _grid_filters(device: torch.device) -> Tensor:
    """Return (GRID_WINDOW_PX, 4): a tapered mean, cosine and sine of period 4, cosine of period 2."""
    position = torch.arange(GRID_WINDOW_PX, device=device)
    taper = torch.hann_window(GRID_WINDOW_PX, device=device)
    waves = [torch.ones_like(taper), torch.cos(math.pi / 2 * position), torch.sin(math.pi / 2 * position)]
    return torch.stack([*waves, torch.cos(math.pi * position)], dim=1) * (taper / taper.sum())[:, None]


def perceptual_loss(
    network: LossNetwork,
    result_NCHW: Tensor,
    content_NCHW: Tensor,
    target: StyleTarget,
    weights: LossWeights,
    view: LossView = WHOLE,
) -> LossTerms:
    """Return the terms of the loss of a batch of results.

    Args:
        network: the loss network.
        result_NCHW: (N, 3, H, W) ImageNet-normalised output of the network in training, in the loss network's dtype.
        content_NCHW: (N, 3, H, W) the images it was made from.
        target: Grams of the style image.
        weights: of the terms.
        view: what the loss network sees of both; smoothness and grid are those of the whole result.
    """
    with torch.no_grad():
        wanted = network.content(view.of(content_NCHW))
    found = network.features(view.of(result_NCHW))
    content = content_loss(found.content_NCHW, wanted, network.content_energy)
    style = style_loss(tuple(gram_matrix(layer) for layer in found.style_NCHW), target)
    variation = total_variation_loss(result_NCHW)
    grid = grid_loss(result_NCHW)
    total = weights.content * content + weights.style * style + weights.total_variation * variation
    total = total + weights.grid * grid
    return LossTerms(content=content, style=style, total_variation=variation, grid=grid, total=total)
