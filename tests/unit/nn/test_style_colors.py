from __future__ import annotations

import pytest
import torch

from stylemill.nn.style_colors import with_colors_of


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
