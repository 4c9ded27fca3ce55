from __future__ import annotations

import pytest
import torch

from stylemill.nn.colors import palette_distance, palette_of
from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LayerWeights, LossWeights
from stylemill.nn.losses import (
    FULL_VIEW,
    MIN_VIEW_SIDE_PX,
    LossView,
    StyleTarget,
    content_loss,
    content_term,
    gram_matrix,
    grid_loss,
    perceptual_loss,
    style_distances,
    style_target,
    style_term,
    total_variation_loss,
)


@pytest.fixture(scope="module")
def network():
    return PyramidLossNetwork()


def random_batch(num: int, seed: int, side_px: int = 32) -> torch.Tensor:
    return torch.randn(num, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def test_content_loss_by_hand():
    # Both channels have variance 1 and the ridge is 0.1 * 2.5: values of 1 and -1 become +-1/sqrt(1.25).
    found, wanted = torch.tensor([3.0, 1.0, 3.0, 1.0]), torch.tensor([-4.0, -2.0, -2.0, -4.0])
    loss = content_loss(found.view(1, 1, 2, 2), wanted.view(1, 1, 2, 2), energy=2.5)
    assert loss.item() == pytest.approx((2 / 1.25**0.5) ** 2 / 2)


def test_content_is_where_something_is_and_not_its_contrast_and_tone():
    wanted = torch.randn(2, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    strength, tone = torch.rand(2, 2, 8, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    assert content_loss(wanted * strength + tone, wanted, energy=0.01).item() < 1e-3
    assert content_loss(wanted.roll(5, dims=3), wanted, energy=0.01).item() > 1.5


def test_flat_content_is_not_amplified():
    flat = 1e-3 * torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    assert content_loss(torch.zeros(1, 4, 24, 24), flat, energy=1.0).item() < 1e-4


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_content_loss_and_its_derivative_in_the_precision_of_the_features(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    found, wanted = (torch.randn(2, 64, 96, 96, generator=generator).to(dtype) for _ in range(2))
    found.requires_grad_()
    loss = content_loss(found, wanted, energy=0.7)
    loss.backward()
    exact = found.detach().double().requires_grad_()
    norm = torch.nn.functional.instance_norm
    expected = torch.nn.functional.mse_loss(norm(exact, eps=0.07), norm(wanted.double(), eps=0.07))
    expected.backward()
    assert loss.dtype == torch.float32
    assert found.grad.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=0, atol=tolerance * exact.grad.abs().max().item())


def test_style_distances_by_hand():
    # Layer a: difference 2 everywhere against a target of 4: 4/16. Layer b: equal.
    grams = {"a": torch.full((2, 3, 3), 2.0), "b": torch.ones(2, 5, 5)}
    target = StyleTarget({"a": torch.full((1, 3, 3), 4.0), "b": torch.ones(1, 5, 5)})
    distances = style_distances(grams, target, random_batch(2, seed=0))
    assert {name: loss.item() for name, loss in distances.items()} == {"a": 0.25, "b": 0.0}


def with_layers(content: dict[str, float], style: dict[str, float]) -> PyramidLossNetwork:
    return PyramidLossNetwork(LayerWeights(content=content, style=style))


def test_terms_are_means_over_layers_weighted_by_their_shares():
    weighted = with_layers({"level0": 3.0, "level1": 1.0}, {"level0": 1.0, "level2": 3.0})
    result, content, style = (random_batch(1, seed=seed) for seed in (1, 2, 3))
    found, wanted = weighted.features(result), weighted.content(content)
    by_layer = [
        content_loss(found.content[name], wanted[name], weighted.content_energies[name]).item() for name in wanted
    ]
    expected = (3 * by_layer[0] + by_layer[1]) / 4
    assert content_term(weighted, found.content, wanted).item() == pytest.approx(expected)
    target, grams = style_target(weighted, style), {name: gram_matrix(layer) for name, layer in found.style.items()}
    distances = style_distances(grams, target, result)
    expected = ((distances["level0"] + 3 * distances["level2"]) / 4).item()
    assert style_term(weighted, distances).item() == pytest.approx(expected)
    terms = perceptual_loss(weighted, result, content, target, LossWeights(total_variation=0, grid=0))
    assert terms.style.item() == pytest.approx(expected)


def test_only_layers_that_both_pictures_are_large_enough_for_are_compared():
    fine, coarse = torch.full((1, 2, 2), 2.0), torch.full((1, 2, 2), 5.0)
    network = with_layers({"level1": 1.0}, {"level0": 1.0, "level4": 7.0})
    for grams, target in (
        ({"level0": fine / 2}, {"level0": fine, "level4": coarse}),
        ({"level0": fine / 2, "level4": coarse}, {"level0": fine}),
    ):
        distances = style_distances(grams, StyleTarget(target), random_batch(1, seed=0))
        assert style_term(network, distances).item() == pytest.approx(0.25)


def test_the_palette_has_its_share_of_the_style_term_and_is_seen_through_the_view():
    coloured = with_layers({"level0": 1.0}, {"palette": 3.0, "level0": 1.0})
    plain = with_layers({"level0": 1.0}, {"level0": 1.0})
    result, style = drawn_batch(2), drawn_batch(1)[:1] ** 2
    terms = perceptual_loss(coloured, result, result, style_target(coloured, style), LossWeights(), HALF)
    without = perceptual_loss(plain, result, result, style_target(plain, style), LossWeights(), HALF)
    palette = palette_distance(HALF.apply(result), palette_of(style))
    assert palette > 0.5
    torch.testing.assert_close(terms.style, (3 * palette + without.style) / 4)


@pytest.mark.parametrize(("crop_px", "style_px"), [(32, 128), (128, 32)])
def test_the_pyramid_compares_small_crops_with_large_styles_and_the_other_way_round(network, crop_px, style_px):
    target = torch.rand(1, 3, style_px, style_px)
    result = torch.rand(2, 3, crop_px, crop_px, requires_grad=True)
    terms = perceptual_loss(network, result, result.detach(), style_target(network, target), LossWeights())
    terms.total.backward()
    assert terms.style.item() > 0 and result.grad.isfinite().all()


def test_total_variation_by_hand():
    # Down: 3 and 3 -> mean of squares 9. Across: 1 and 1 -> 1.
    image_NCHW = torch.tensor([[[[0.0, 1.0], [3.0, 4.0]]]])
    assert total_variation_loss(image_NCHW).item() == pytest.approx(10.0)


def wave(period_y_px: float, period_x_px: float, amplitude: float = 1.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phase = (y / period_y_px if period_y_px else 0 * y) + (x / period_x_px if period_x_px else 0 * x)
    return amplitude * torch.cos(2 * torch.pi * phase).expand(2, 3, 64, 64)


@pytest.mark.parametrize(
    ("period_y_px", "period_x_px", "expected"),
    [(0, 2, 1.0), (2, 0, 1.0), (2, 2, 1.0), (0, 4, 0.25), (4, 0, 0.25), (4, 2, 0.25), (4, 4, 0.125), (4, -4, 0.125)],
)
def test_waves_of_the_grid_cost_their_energy_whatever_the_direction(period_y_px, period_x_px, expected):
    # A wave's coefficient is 1 at the Nyquist frequency, 1/2 at a period of 4 px, 1/2 of that where it runs both ways.
    assert grid_loss(wave(period_y_px, period_x_px)).item() == pytest.approx(expected, rel=1e-4)
    assert grid_loss(wave(period_y_px, period_x_px, 0.5)).item() == pytest.approx(expected / 4, rel=1e-4)


@pytest.mark.parametrize("period_px", [2.7, 3.2, 5, 8, 32])
def test_strokes_of_other_periods_and_flat_colours_are_free(period_px):
    assert grid_loss(wave(0, period_px)).item() < 5e-3
    assert grid_loss(wave(period_px, 0)).item() < 5e-3
    assert grid_loss(torch.full((1, 3, 64, 64), 2.0)).item() < 1e-9


def test_the_style_itself_costs_no_style_and_the_content_itself_no_content(network):
    image_NCHW = random_batch(1, seed=1)
    terms = perceptual_loss(network, image_NCHW, image_NCHW, style_target(network, image_NCHW), LossWeights())
    assert terms.content.item() == 0
    assert terms.style.item() == pytest.approx(0, abs=1e-10)
    weights = LossWeights()
    expected = weights.total_variation * terms.total_variation + weights.grid * terms.grid
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_total_is_the_weighted_sum_and_terms_are_not_weighted(network):
    result, content, style = (random_batch(2, seed=seed) for seed in (1, 2, 3))
    target = style_target(network, style[:1])
    weights = LossWeights(content=2, style=5, total_variation=7, grid=11)
    terms = perceptual_loss(network, result, content, target, weights)
    nothing_else = LossWeights(content=1, style=0, total_variation=0, grid=0)
    plain = perceptual_loss(network, result, content, target, nothing_else)
    assert plain.total == terms.content
    expected = 2 * terms.content + 5 * terms.style + 7 * terms.total_variation + 11 * terms.grid
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_of_a_batch_is_the_mean_of_its_images_so_that_workers_can_share_it(network):
    result, content = random_batch(4, seed=1), random_batch(4, seed=2)
    target = style_target(network, random_batch(1, seed=3))
    whole = perceptual_loss(network, result, content, target, LossWeights()).total
    single = [
        perceptual_loss(network, result[i : i + 1], content[i : i + 1], target, LossWeights()).total for i in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(single).mean())


def test_gradients_reach_the_result_but_neither_content_nor_network(network):
    result, content = random_batch(1, seed=1).requires_grad_(), random_batch(1, seed=2).requires_grad_()
    target = style_target(network, random_batch(1, seed=3))
    perceptual_loss(network, result, content, target, LossWeights()).total.backward()
    assert result.grad is not None and result.grad.abs().sum() > 0
    assert content.grad is None
    assert not any(gram.requires_grad for gram in target.grams.values())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_losses_stay_float32_under_bfloat16(network):
    image_NCHW, target = random_batch(1, seed=1), style_target(network, random_batch(1, seed=3))
    exact = perceptual_loss(network, image_NCHW, random_batch(1, seed=2), target, LossWeights())
    with torch.autocast("cpu", torch.bfloat16):
        rough = perceptual_loss(network, image_NCHW, random_batch(1, seed=2), target, LossWeights())
    for term in ("content", "style", "total_variation", "grid", "total"):
        assert getattr(rough, term).dtype == torch.float32
        assert getattr(rough, term).item() == pytest.approx(getattr(exact, term).item(), rel=0.02)


def test_gram_of_the_target_is_the_styles(network):
    style = random_batch(1, seed=3)
    for gram, features in zip(
        style_target(network, style).grams.values(), network.features(style).style.values(), strict=True
    ):
        torch.testing.assert_close(gram, gram_matrix(features))


def test_against_a_hand_computed_matrix():
    # Channels (1, 2, 3, 4) and (0, 1, 0, -1); C*H*W = 8.
    features_NCHW = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
    expected = torch.tensor([[[30.0, -2.0], [-2.0, 2.0]]]) / 8
    assert torch.equal(gram_matrix(features_NCHW), expected)


def test_each_image_of_a_batch_has_its_own_matrix_whatever_the_memory_layout():
    features_NCHW = torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    together = gram_matrix(features_NCHW.contiguous(memory_format=torch.channels_last))
    assert together.shape == (3, 5, 5)
    for image, gram_CC in zip(features_NCHW, together, strict=True):
        torch.testing.assert_close(gram_CC[None], gram_matrix(image[None]))


def test_half_precision_is_summed_in_float32_even_under_autocast():
    # 2^9 + 1 ones: bfloat16 stops counting at 256.
    features_NCHW = torch.ones(1, 1, 1, 513, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        gram_NCC = gram_matrix(features_NCHW)
    assert gram_NCC.dtype == torch.float32
    assert gram_NCC.item() == 1.0


def test_other_shapes_than_a_batch_of_features_are_refused():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        gram_matrix(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_is_that_of_the_formula(memory_format):
    features_NCHW = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features_NCHW = features_NCHW.to(memory_format=memory_format).requires_grad_()
    weights_NCC = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    (gram_matrix(features_NCHW) * weights_NCC).sum().backward()
    plain = features_NCHW.detach().clone().requires_grad_()
    flat = plain.reshape(2, 3, 20)
    (flat @ flat.transpose(1, 2) / 60 * weights_NCC).sum().backward()
    torch.testing.assert_close(features_NCHW.grad, plain.grad, rtol=1e-5, atol=1e-7)


HALF = LossView(scale=0.5, margin_px=4, top_px=1, left_px=3)


def drawn_batch(seed: int, height_px: int = 68, width_px: int = 84) -> torch.Tensor:
    return torch.randn(2, 3, height_px, width_px, generator=torch.Generator().manual_seed(seed))


def test_the_whole_view_is_the_batch_itself():
    batch_NCHW = drawn_batch(0)
    assert FULL_VIEW.apply(batch_NCHW) is batch_NCHW


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_view_is_a_window_made_smaller(dtype):
    batch_NCHW = torch.full((1, 3, 68, 84), 9.0, dtype=dtype)
    batch_NCHW[:, :, 1:65, 3:83] = 2.0
    view_NCHW = HALF.apply(batch_NCHW)
    assert (view_NCHW.shape, view_NCHW.dtype) == ((1, 3, 32, 40), dtype)
    assert torch.equal(view_NCHW, torch.full_like(view_NCHW, 2.0))


def test_lines_too_fine_for_a_smaller_view_are_smoothed_away():
    """Without smoothing they would appear as other lines."""
    lines = torch.tensor([1.0, -1.0]).repeat(32)
    view_NCHW = LossView(scale=0.5).apply(lines.expand(1, 3, 64, 64))
    assert view_NCHW[..., 2:-2].abs().max() < 1e-6


def test_no_view_is_smaller_than_loss_networks_need():
    assert LossView(scale=0.25).apply(drawn_batch(0, 32, 200)).shape[2:] == (MIN_VIEW_SIDE_PX, 50)
    assert LossView(scale=0.25).apply(drawn_batch(0, 12, 12)).shape[2:] == (12, 12)


def test_content_and_style_are_those_of_the_view_total_variation_and_grid_of_the_whole(network):
    weights = LossWeights()
    target = style_target(network, drawn_batch(1)[:1])
    result_NCHW, content_NCHW = drawn_batch(2), drawn_batch(3)
    seen = perceptual_loss(network, result_NCHW, content_NCHW, target, weights, HALF)
    beforehand = perceptual_loss(network, HALF.apply(result_NCHW), HALF.apply(content_NCHW), target, weights)
    whole = perceptual_loss(network, result_NCHW, content_NCHW, target, weights)
    assert (seen.content, seen.style) == (beforehand.content, beforehand.style)
    assert (seen.total_variation, seen.grid) == (whole.total_variation, whole.grid)
    assert seen.style != whole.style


def test_every_pixel_of_the_window_learns_and_no_other():
    batch_NCHW = drawn_batch(0).requires_grad_()
    HALF.apply(batch_NCHW).square().sum().backward()
    inside = torch.zeros_like(batch_NCHW)
    inside[:, :, 1:65, 3:83] = 1
    assert torch.equal(batch_NCHW.grad != 0, inside != 0)
