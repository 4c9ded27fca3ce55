from __future__ import annotations

import pytest
import torch

from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import LEAST_SIDE_PX, WHOLE, LossView, perceptual_loss, style_target

HALF = LossView(scale=0.5, margin_px=4, top_px=1, left_px=3)


def random_batch(seed: int, height_px: int = 68, width_px: int = 84) -> torch.Tensor:
    return torch.randn(2, 3, height_px, width_px, generator=torch.Generator().manual_seed(seed))


def test_the_whole_view_is_the_batch_itself():
    batch_NCHW = random_batch(0)
    assert WHOLE.of(batch_NCHW) is batch_NCHW


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_view_is_a_window_made_smaller(dtype):
    batch_NCHW = torch.full((1, 3, 68, 84), 9.0, dtype=dtype)
    batch_NCHW[:, :, 1:65, 3:83] = 2.0
    view_NCHW = HALF.of(batch_NCHW)
    assert (view_NCHW.shape, view_NCHW.dtype) == ((1, 3, 32, 40), dtype)
    assert torch.equal(view_NCHW, torch.full_like(view_NCHW, 2.0))


def test_lines_too_fine_for_a_smaller_view_are_smoothed_away():
    """Without smoothing they would come back as other lines."""
    lines = torch.tensor([1.0, -1.0]).repeat(32)
    view_NCHW = LossView(scale=0.5).of(lines.expand(1, 3, 64, 64))
    assert view_NCHW[..., 2:-2].abs().max() < 1e-6


def test_no_view_is_smaller_than_loss_networks_need():
    assert LossView(scale=0.25).of(random_batch(0, 32, 200)).shape[2:] == (LEAST_SIDE_PX, 50)
    assert LossView(scale=0.25).of(random_batch(0, 12, 12)).shape[2:] == (12, 12)


def test_loss_network_sees_the_view_smoothness_and_grid_the_whole():
    network, weights = PyramidLossNetwork(), LossWeights()
    target = style_target(network, random_batch(1)[:1])
    result_NCHW, content_NCHW = random_batch(2), random_batch(3)
    seen = perceptual_loss(network, result_NCHW, content_NCHW, target, weights, HALF)
    beforehand = perceptual_loss(network, HALF.of(result_NCHW), HALF.of(content_NCHW), target, weights)
    whole = perceptual_loss(network, result_NCHW, content_NCHW, target, weights)
    assert (seen.content, seen.style) == (beforehand.content, beforehand.style)
    assert (seen.total_variation, seen.grid) == (whole.total_variation, whole.grid)
    assert seen.style != whole.style


def test_every_pixel_of_the_window_learns_and_no_other():
    batch_NCHW = random_batch(0).requires_grad_()
    HALF.of(batch_NCHW).square().sum().backward()
    inside = torch.zeros_like(batch_NCHW)
    inside[:, :, 1:65, 3:83] = 1
    assert torch.equal(batch_NCHW.grad != 0, inside != 0)
