from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylemill.images.controls import blend, limit_size, network_size, preserve_color, resize


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_blend_is_the_weighted_mean(strength: float, height: int, width: int) -> None:
    source, result = noise(height, width, 1), noise(height, width, 2)
    mixed = blend(source, result, strength).astype(float)
    exact = source + strength * (result.astype(float) - source)
    assert np.abs(mixed - exact).max() <= 0.5 + 255 / 512 + 1e-9


def test_blend_gives_both_ends_back_bit_for_bit() -> None:
    source, result = noise(9, 7, 1), noise(9, 7, 2)
    np.testing.assert_array_equal(blend(source, result, 0), source)
    np.testing.assert_array_equal(blend(source, result, 1), result)


def test_blend_of_a_picture_with_itself_changes_nothing() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for strength in np.linspace(0, 1, 41):
        np.testing.assert_array_equal(blend(every, every, float(strength)), every)


def test_blend_in_many_strips_equals_blend_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    source, result = noise(50, 7, 1), noise(50, 7, 2)
    whole = blend(source, result, 0.3), preserve_color(source, result)
    monkeypatch.setattr("stylemill.images.controls._STRIP_PIXELS", 20)
    np.testing.assert_array_equal(blend(source, result, 0.3), whole[0])
    np.testing.assert_array_equal(preserve_color(source, result), whole[1])


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_blend_refuses_other_strengths(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        blend(noise(2, 2, 1), noise(2, 2, 2), strength)


def test_controls_refuse_pictures_of_two_sizes() -> None:
    for control in (lambda a, b: blend(a, b, 0.5), preserve_color):
        with pytest.raises(ValueError, match="differ in size"):
            control(noise(4, 4, 1), noise(4, 5, 1))


def to_ycbcr(image_HWC: np.ndarray) -> np.ndarray:
    """JFIF 1.02, written out."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return image_HWC @ matrix.T + (0, 128, 128)


def test_preserve_color_takes_luminance_here_and_chroma_there() -> None:
    source = 96 + noise(20, 20, 3) // 4
    result = 96 + noise(20, 20, 4) // 4
    mixed = to_ycbcr(preserve_color(source, result))
    assert np.abs(mixed[..., 0] - to_ycbcr(result)[..., 0]).max() < 2
    assert np.abs(mixed[..., 1:] - to_ycbcr(source)[..., 1:]).max() < 2


def test_preserve_color_keeps_gray_gray() -> None:
    gray = np.repeat(noise(8, 8, 1)[..., :1], 3, axis=-1)
    colored = preserve_color(gray, noise(8, 8, 2)).astype(int)
    assert np.abs(colored - colored[..., :1]).max() <= 1


def test_limit_size_keeps_the_shape() -> None:
    assert limit_size(noise(300, 200, 5), 100).shape == (100, 67, 3)
    assert limit_size(noise(1000, 1, 5), 10).shape == (10, 1, 3)


def test_limit_size_leaves_what_is_small_enough() -> None:
    image = noise(30, 20, 5)
    assert limit_size(image, 30) is image
    assert limit_size(image, None) is image


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0.05, 20))
@settings(max_examples=100, deadline=None)
def test_network_size_scales_and_never_falls_under_what_a_network_needs(w: int, h: int, scale: float) -> None:
    for side, scaled in zip((w, h), network_size(w, h, scale), strict=True):
        assert scaled >= min(side, 16)
        assert abs(scaled - side / scale) <= 0.5 or scaled == min(side, 16)


def test_resize_keeps_constants_of_every_kind() -> None:
    for array in (
        np.full((9, 7, 3), 200, np.uint8),
        np.full((9, 7), 3, np.uint8),
        np.full((9, 7), 40_000, np.uint16),
    ):
        bigger = resize(array, 13, 20)
        assert bigger.shape[:2] == (20, 13)
        assert bigger.dtype == array.dtype
        assert (bigger == array.flat[0]).all()
