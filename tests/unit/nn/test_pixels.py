from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylemill.nn.pixels import IMAGENET_MEAN, IMAGENET_STD, deprocess, normalize, pad_to_network


@given(st.integers(1, 70), st.integers(1, 70))
def test_padding_keeps_the_image_in_the_corner_and_reflects_the_rest(height_px, width_px):
    image_HWC = np.random.default_rng(height_px * 100 + width_px).integers(
        0, 256, (height_px, width_px, 3), dtype=np.uint8
    )
    padded_HWC = pad_to_network(image_HWC)
    for side, padded in zip((height_px, width_px), padded_HWC.shape[:2], strict=True):
        assert padded % 4 == 0 and padded >= 16
        assert padded - side < 4 or side < 16
    assert np.array_equal(padded_HWC[:height_px, :width_px], image_HWC)
    if padded_HWC.shape[1] > width_px > 1:
        assert np.array_equal(padded_HWC[:height_px, width_px], image_HWC[:, width_px - 2])
    if padded_HWC.shape[0] > height_px > 1:
        assert np.array_equal(padded_HWC[height_px, :width_px], image_HWC[height_px - 2])


def test_an_image_that_fits_is_not_copied():
    image_HWC = np.zeros((16, 20, 3), dtype=np.uint8)
    assert pad_to_network(image_HWC) is image_HWC


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_other_arrays_than_rgb_images_are_refused_with_their_shape(array):
    with pytest.raises(ValueError, match="image"):
        pad_to_network(array)


def test_normalize_is_the_recipe_of_imagenet():
    pixels_NHWC = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    wanted = [(value / 255 - m) / s for value, m, s in zip((0, 128, 255), IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert torch.allclose(normalize(pixels_NHWC).flatten(), torch.tensor(wanted), atol=1e-6)


def test_deprocess_undoes_normalize_for_every_value_and_rounds_and_clamps():
    ramp_NHWC = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    normal_NCHW = normalize(ramp_NHWC)
    assert torch.equal(deprocess(normal_NCHW), ramp_NHWC)
    level = 1 / (255 * torch.tensor(IMAGENET_STD).view(3, 1, 1))
    assert torch.equal(deprocess(normal_NCHW + 0.4 * level), ramp_NHWC)
    assert deprocess(torch.full((1, 3, 1, 1), 1e6)).unique().tolist() == [255]
    assert deprocess(torch.full((1, 3, 1, 1), -1e6)).unique().tolist() == [0]
