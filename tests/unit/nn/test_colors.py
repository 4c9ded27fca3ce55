from __future__ import annotations

import pytest
import torch

from stylemill.nn.colors import palette_distance, palette_of, with_colors_of


def images(num: int, seed: int, side_px: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed_NCC = torch.randn(num, 3, 3, generator=generator)
    noise_NCHW = torch.randn(num, 3, side_px, side_px + 4, generator=generator)
    shift_NC11 = torch.randn(num, 3, 1, 1, generator=generator)
    return torch.einsum("nij,njhw->nihw", mixed_NCC, noise_NCHW) + shift_NC11


def moments(image_CHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat_CP = image_CHW.flatten(1)
    return flat_CP.mean(dim=1), torch.cov(flat_CP, correction=0)


def test_each_copy_of_the_style_has_the_colours_of_its_content():
    content_NCHW = images(3, seed=1)
    recoloured_NCHW = with_colors_of(images(1, seed=2, side_px=40), content_NCHW)
    assert recoloured_NCHW.shape == (3, 3, 40, 44)
    for recoloured, content in zip(recoloured_NCHW, content_NCHW, strict=True):
        for found, wanted in zip(moments(recoloured), moments(content), strict=True):
            torch.testing.assert_close(found, wanted, rtol=5e-3, atol=5e-3)


def test_equal_colours_change_nothing():
    style_NCHW = images(1, seed=3)
    torch.testing.assert_close(with_colors_of(style_NCHW, style_NCHW), style_NCHW, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grey_and_flat_pictures_stay_finite(dtype):
    grey_NCHW = torch.randn(1, 1, 20, 20).expand(1, 3, 20, 20).to(dtype)
    flat_NCHW = torch.full((1, 3, 20, 20), 0.5, dtype=dtype)
    for style_NCHW in (grey_NCHW, flat_NCHW):
        for content_NCHW in (grey_NCHW, flat_NCHW):
            assert with_colors_of(style_NCHW, content_NCHW).isfinite().all()
    # A grey content image makes the style grey.
    recoloured_NCHW = with_colors_of(images(1, seed=4), grey_NCHW)
    assert (recoloured_NCHW[:, 0] - recoloured_NCHW[:, 1]).abs().max() < 0.15


def test_a_picture_is_near_its_own_palette_whatever_its_size_and_arrangement():
    style_NCHW = images(1, seed=5, side_px=100)
    palette = palette_of(style_NCHW)
    assert palette_distance(style_NCHW, palette).item() < 1e-3  # of 10,400 pixels only 4,096 are compared
    shuffled = style_NCHW.flatten(2)[:, :, torch.randperm(100 * 104, generator=torch.Generator().manual_seed(0))]
    assert palette_distance(shuffled.unflatten(2, (104, 100)), palette).item() < 5e-3
    assert palette_distance(style_NCHW[:, :, ::2, ::2], palette).item() < 2e-2
    small = images(1, seed=6, side_px=20)
    assert palette_distance(small, palette_of(small)).item() < 1e-9


def test_a_style_without_its_rare_hue_is_far_away_like_its_mean_colour_alone():
    """Light and dark have nine times the variance of the hue."""
    light, hue = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    style_NCHW = light.expand(3, 64, 64).clone()[None] + torch.tensor([0.4, -0.4, 0.0]).view(1, 3, 1, 1) * hue
    palette = palette_of(style_NCHW)
    mean_NCHW = style_NCHW.mean(dim=(2, 3), keepdim=True).expand_as(style_NCHW)
    grey_NCHW = light.expand(3, 64, 64)[None]
    assert palette_distance(mean_NCHW, palette).item() == pytest.approx(0.6, abs=0.2)
    assert 0.05 < palette_distance(grey_NCHW, palette).item() < palette_distance(mean_NCHW, palette).item()


def test_the_distance_of_a_batch_is_the_mean_of_its_images_also_with_a_palette_each():
    result_NCHW, style_NCHW = images(3, seed=7), images(3, seed=8, side_px=40)
    pairs = zip(result_NCHW.split(1), style_NCHW.split(1), strict=True)
    alone = [palette_distance(result, palette_of(style)) for result, style in pairs]
    together = palette_distance(result_NCHW, palette_of(style_NCHW))
    torch.testing.assert_close(together, torch.stack(alone).mean())
    one = palette_of(style_NCHW[:1])
    alone = [palette_distance(result, one) for result in result_NCHW.split(1)]
    torch.testing.assert_close(palette_distance(result_NCHW, one), torch.stack(alone).mean())


def test_descending_the_distance_gives_a_picture_the_colours():
    style_NCHW = images(1, seed=9, side_px=60).abs()
    pixels_NCHW = images(1, seed=10, side_px=60).requires_grad_()
    palette = palette_of(style_NCHW)
    optimizer = torch.optim.Adam([pixels_NCHW], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        palette_distance(pixels_NCHW, palette).backward()
        optimizer.step()
    for found, wanted in zip(moments(pixels_NCHW[0].detach()), moments(style_NCHW[0]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_palettes_of_grey_and_of_one_colour_are_finite(dtype):
    grey_NCHW = torch.randn(1, 1, 20, 20).expand(1, 3, 20, 20).to(dtype)
    flat_NCHW = torch.full((1, 3, 20, 20), 0.5, dtype=dtype)
    for style_NCHW in (grey_NCHW, flat_NCHW):
        assert 0 < palette_distance(images(1, seed=4), palette_of(style_NCHW)).item() < 500
        assert palette_distance(style_NCHW, palette_of(style_NCHW)).item() < 1e-3
