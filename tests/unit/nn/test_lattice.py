from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stylemill.nn.lattice import WINDOW_PX, lattice_loss, spectrum_shape


def details(seed: int, num: int = 2, side: int = 160) -> Tensor:
    """Return pictures with details of all sizes and directions, as photographs and paintings have."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(side)[:, None].hypot(torch.fft.fftfreq(side)[None]).clamp(min=1 / side)
    noise = torch.randn(num, 3, side, side, generator=generator)
    pictures = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    return pictures / pictures.std()


def lines(period_px: float, degrees: float, side: int = 160) -> Tensor:
    down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angle = math.radians(degrees)
    return torch.sin(2 * math.pi / period_px * (across * math.cos(angle) + down * math.sin(angle)))


@pytest.mark.parametrize("degrees", [0, 30, 45, 72, 135])
@pytest.mark.parametrize("period_px", [2.6, 4.5, 7])
def test_lines_all_over_the_picture_are_penalised(period_px: float, degrees: float) -> None:
    content, style = details(1), spectrum_shape(details(2, num=1))
    clean = lattice_loss(details(3), content, style)
    hatched = lattice_loss(details(3) + 0.3 * lines(period_px, degrees), content, style)
    assert hatched > 4 * clean + 0.01


def test_lines_of_the_content_or_the_style_are_allowed() -> None:
    hatching = 0.3 * lines(5, 30)
    content, style, result = details(1), details(2, num=1), details(3) + hatching
    penalised = lattice_loss(result, content, spectrum_shape(style))
    assert lattice_loss(result, content, spectrum_shape(style + hatching)) < penalised / 4
    assert lattice_loss(result, content + hatching, spectrum_shape(style)) < penalised / 4


def test_the_content_itself_costs_nothing() -> None:
    content = details(1)
    assert lattice_loss(content, content, spectrum_shape(details(2, num=1))) == 0


def test_contrast_and_brightness_do_not_count() -> None:
    content, style = details(1), spectrum_shape(details(2, num=1))
    result = details(3) + 0.3 * lines(5, 30)
    assert torch.allclose(
        lattice_loss(result, content, style), lattice_loss(0.5 * result + 1, content, style), rtol=0.01
    )


def test_it_is_a_mean_over_samples() -> None:
    content, result = details(1, num=4), details(3, num=4) + 0.3 * lines(5, 30)
    style = spectrum_shape(details(2, num=1))
    halves = [lattice_loss(result[part], content[part], style) for part in (slice(2), slice(2, 4))]
    assert torch.allclose(lattice_loss(result, content, style), sum(halves) / 2, rtol=1e-4)


def test_each_sample_may_have_a_style_of_its_own() -> None:
    hatching = 0.3 * lines(5, 30)
    content, styles = details(1), torch.cat([details(2, num=1), details(2, num=1) + hatching])
    result = details(3) + hatching
    first, second = (
        lattice_loss(result[i : i + 1], content[i : i + 1], spectrum_shape(styles)[i : i + 1]) for i in (0, 1)
    )
    assert torch.allclose(lattice_loss(result, content, spectrum_shape(styles)), (first + second) / 2, rtol=1e-4)


def test_small_pictures_have_none_and_even_ones_a_finite_gradient() -> None:
    style = spectrum_shape(details(2, num=1))
    small = torch.zeros(1, 3, WINDOW_PX - 1, 100)
    assert lattice_loss(small, small, style) == 0
    even = torch.full((1, 3, 128, 128), 0.3, requires_grad=True)
    lattice_loss(even, details(1, num=1, side=128), style).backward()
    assert even.grad is not None
    assert even.grad.isfinite().all()


def test_the_gradient_removes_the_lines() -> None:
    content, style = details(1), spectrum_shape(details(2, num=1))
    result = (details(3) + 0.3 * lines(5, 30)).requires_grad_()
    before = lattice_loss(result, content, style)
    optimizer = torch.optim.Adam([result], lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        lattice_loss(result, content, style).backward()
        optimizer.step()
    assert lattice_loss(result, content, style) < before / 3
