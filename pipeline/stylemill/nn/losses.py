"""The training loss: content, style, total variation, grid and lattice.

``perceptual_loss`` returns all terms of a batch; each is divided by its scale. A ``LossView`` is the window and scale
at which the loss network sees the batch in one step. All sums are computed in float32, whatever the precision of the
features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylemill.nn.colors import Palette, palette_distance, palette_of
from stylemill.nn.lattice import WINDOW_PX, lattice_loss, spectrum_shape
from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_weights import PALETTE, LossWeights

MIN_VIEW_SIDE_PX = 16
"""Smallest side of a view at any scale, which loss networks need."""

GRID_WINDOW_PX = 32
"""Side of the windows of the grid term; wide enough to exclude strokes of other periods."""


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

    Saves the features in their own precision instead of a float32 copy.
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
        # The gradient has the features' precision in any case; only the sums of the forward pass need more.
        with torch.autocast(features_NCHW.device.type, enabled=False):
            flat_NPC = torch.bmm(_by_pixel(features_NCHW), symmetric_NCC.to(features_NCHW.dtype))
        return flat_NPC.view(num, height, width, channels).permute(0, 3, 1, 2)


def _by_pixel(features_NCHW: Tensor) -> Tensor:
    """Return (N, H*W, C); a view of channels-last features."""
    return features_NCHW.permute(0, 2, 3, 1).flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class LossView:
    """A window and a scale, the same for results and content.

    A loss that always compares the same pixels at the same scale also accepts artefacts: grids with the periods that
    upsampling repeats, which it hardly sees, and a dark rim that compensates for missing colours. The view changes the
    periods and leaves out the rim from step to step, so that neither lowers the loss.

    Source: expectation over transformations as in Athalye et al. 2018, arXiv:1707.07397; random scales as in
    Olah et al. 2017, doi:10.23915/distill.00007.
    """

    scale: float = 1.0
    """Sides of the view divided by those of the window; at most 1."""
    margin_px: int = 0
    """Rows, and columns, that the window leaves out in total."""
    top_px: int = 0
    """Rows left out at the top."""
    left_px: int = 0
    """Columns left out at the left."""

    def viewed_px(self, side_px: int) -> int:
        """Return the side of the view of a batch's side."""
        window_px = side_px - self.margin_px
        return max(min(window_px, MIN_VIEW_SIDE_PX), round(window_px * self.scale))

    def apply(self, batch_NCHW: Tensor) -> Tensor:
        """Return the view, (N, C, h, w) in the batch's dtype, antialiased if it is smaller than the window.

        Args:
            batch_NCHW: (N, C, H, W) of any float dtype, sides longer than the margin.
        """
        if self == FULL_VIEW:
            return batch_NCHW  # the gradient of a slice would lose the batch's memory format
        height_px, width_px = (side_px - self.margin_px for side_px in batch_NCHW.shape[2:])
        window_NCHW = batch_NCHW[:, :, self.top_px : self.top_px + height_px, self.left_px : self.left_px + width_px]
        size_px = [self.viewed_px(side_px) for side_px in batch_NCHW.shape[2:]]
        if size_px == [height_px, width_px]:
            return window_NCHW
        view_NCHW = F.interpolate(window_NCHW.float(), size=size_px, mode="bilinear", antialias=True)
        return view_NCHW.to(batch_NCHW.dtype)


FULL_VIEW = LossView()
"""The whole batch at its own scale."""


@dataclass(frozen=True)
class LossTerms:
    """Float32 scalars, unweighted except ``total``."""

    content: Tensor
    style: Tensor
    total_variation: Tensor
    grid: Tensor
    lattice: Tensor
    total: Tensor


@dataclass(frozen=True)
class StyleTarget:
    """What the style term compares with: of one style image, or of one per content image."""

    grams: dict[str, Tensor]
    """Gram matrices by style layer, (1, C, C) or (N, C, C) float32."""
    palette: Palette | None = None
    """Distribution of colours; None leaves colours to the Gram matrices."""
    spectrum: Tensor | None = None
    """``spectrum_shape``, one or N; None for a style image that is smaller than its windows: no lattice term."""

    @classmethod
    def joined(cls, targets: Sequence[StyleTarget]) -> StyleTarget:
        """Return one target per image from those of single images.

        Of layers for which one of the style images is too small, and of spectra, all go without.
        """
        first, *others = targets
        if not others:
            return first
        shared = [name for name in first.grams if all(name in other.grams for other in others)]
        palettes = [target.palette for target in targets if target.palette is not None]
        spectra = [target.spectrum for target in targets if target.spectrum is not None]
        return cls(
            {name: torch.cat([target.grams[name] for target in targets]) for name in shared},
            Palette.joined(palettes) if palettes else None,
            torch.cat(spectra) if len(spectra) == len(targets) else None,
        )


def style_target(network: LossNetwork, style_NCHW: Tensor) -> StyleTarget:
    """Return the Gram matrices and the spectrum of the style image, and its palette if the style term has one.

    Args:
        network: the loss network.
        style_NCHW: (1, 3, H, W) ImageNet-normalised style image, or (N, 3, H, W) one per content image.
    """
    with torch.no_grad():
        grams = {name: gram_matrix(layer) for name, layer in network.features(style_NCHW).style.items()}
        palette = palette_of(style_NCHW) if PALETTE in network.layers.style else None
        is_large = min(style_NCHW.shape[2:]) >= WINDOW_PX
        return StyleTarget(grams, palette, spectrum_shape(style_NCHW) if is_large else None)


CONTRAST_RIDGE = 0.1
"""Variance below which a channel counts as flat, relative to the layer's energy."""


def content_loss(features_NCHW: Tensor, target_NCHW: Tensor, energy: float) -> Tensor:
    """Return the mean squared difference of features after taking each channel's mean and contrast out; float32 scalar.

    Mean and contrast of a channel belong to the style, and to compare them would hold on to the colours of the
    photograph. What remains is where something is.

    Args:
        features_NCHW: (N, C, H, W) of the result, any float dtype.
        target_NCHW: (N, C, H, W) of the content image.
        energy: the layer's mean square on typical images; channels of much less variance are not amplified.

    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2, on features normalised as by Huang and Belongie 2017,
    arXiv:1703.06868.
    """
    ridge = CONTRAST_RIDGE * energy
    return (_without_contrast(features_NCHW, ridge) - _without_contrast(target_NCHW, ridge)).square().mean()


def _without_contrast(features_NCHW: Tensor, ridge: float) -> Tensor:
    variance_NC11, mean_NC11 = torch.var_mean(features_NCHW.float(), dim=(2, 3), correction=0, keepdim=True)
    return (features_NCHW - mean_NC11) * (variance_NC11 + ridge).rsqrt()


def content_term(network: LossNetwork, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Return the weighted mean of ``content_loss`` over the network's content layers; float32 scalar."""
    losses = {name: content_loss(found[name], wanted[name], network.content_energies[name]) for name in found}
    return _weighted_mean(losses, network.layers.content)


def style_distances(grams_NCC: dict[str, Tensor], target: StyleTarget, result_NCHW: Tensor) -> dict[str, Tensor]:
    """Return the distances to the style, float32 scalars: of the palette, and of each layer's Gram matrix.

    Args:
        grams_NCC: (N, C, C) float32 by layer, of the result. Small pictures lack the coarsest layers; only layers
            that both pictures have are compared. Their distances are squared and relative to the style's energy.
        target: of the style image.
        result_NCHW: (N, 3, H, W) ImageNet-normalised result, for the palette.

    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2, each layer divided by the style's energy.
    """
    distances = {} if target.palette is None else {PALETTE: palette_distance(result_NCHW, target.palette)}
    return distances | {
        name: ((grams_NCC[name] - wanted).square().mean(dim=(1, 2)) / wanted.square().mean(dim=(1, 2))).mean()
        for name, wanted in target.grams.items()
        if name in grams_NCC
    }


def style_term(network: LossNetwork, distances: dict[str, Tensor]) -> Tensor:
    """Return the weighted mean of ``style_distances`` over the network's style layers; float32 scalar."""
    return _weighted_mean(distances, network.layers.style)


def _weighted_mean(losses: dict[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    shares = [weights[name] for name in losses]
    weighted = [loss * share for loss, share in zip(losses.values(), shares, strict=True)]
    return torch.stack(weighted).sum() / sum(shares)


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

    The two nearest upsamplings of the network repeat pixels in twos and fours. The other terms do not penalise the
    patterns that result: to a Gram matrix a line on every fourth column looks like brushwork.

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
    # The first filter is a mean; the product of both means is not a wave.
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
    view: LossView = FULL_VIEW,
) -> LossTerms:
    """Return the terms of the loss of a batch of results.

    Args:
        network: the loss network.
        result_NCHW: (N, 3, H, W) ImageNet-normalised output of the network in training, in the loss network's dtype.
        content_NCHW: (N, 3, H, W) the content images.
        target: Grams of the style image.
        weights: of the terms.
        view: of both for content and style; the other terms are computed on the whole result.
    """
    with torch.no_grad():
        wanted = network.content(view.apply(content_NCHW))
    seen_NCHW = view.apply(result_NCHW)
    found = network.features(seen_NCHW)
    content = content_term(network, found.content, wanted)
    grams = {name: gram_matrix(layer) for name, layer in found.style.items()}
    style = style_term(network, style_distances(grams, target, seen_NCHW))
    variation = total_variation_loss(result_NCHW)
    grid = grid_loss(result_NCHW)
    total = weights.content * content + weights.style * style + weights.total_variation * variation
    total = total + weights.grid * grid
    lattice = torch.zeros_like(grid)
    if weights.lattice and target.spectrum is not None:
        lattice = lattice_loss(result_NCHW, content_NCHW, target.spectrum)
        total = total + weights.lattice * lattice
    return LossTerms(content=content, style=style, total_variation=variation, grid=grid, lattice=lattice, total=total)
