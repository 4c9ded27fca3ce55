from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stylemill.nn.cpu.folding import (
    HEAD_COLUMNS,
    OUTPUT_CENTRE,
    PIXEL_CENTRES,
    fold_nearest_upsampling,
    fold_pixels_into_head,
    fold_pixels_into_stem,
)
from stylemill.nn.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_folded_upsampling_is_the_original_one():
    weight, low_NCHW = drawn(6, 5, 3, 3), drawn(1, 5, 7, 9)
    high_NCHW = F.pad(F.interpolate(low_NCHW, scale_factor=2), (1, 1, 1, 1), mode="reflect")
    wanted_NCHW = F.conv2d(high_NCHW, weight)
    padded_NCHW = F.pad(low_NCHW, (1, 1, 1, 1), mode="replicate")
    got_NCHW = torch.zeros_like(wanted_NCHW)
    for parity, kernel in enumerate(fold_nearest_upsampling(weight)):
        folded_NCHW = F.conv2d(padded_NCHW[:, :, parity : parity + 8], kernel)
        got_NCHW[:, :, parity::2, 0::2] = folded_NCHW[:, :6]
        got_NCHW[:, :, parity::2, 1::2] = folded_NCHW[:, 6:]
    assert torch.allclose(got_NCHW, wanted_NCHW, atol=1e-5)


def test_the_folded_stem_differs_by_a_constant_per_channel():
    weight = drawn(4, 3, 9, 9)
    image_NHWC = torch.randint(0, 256, (1, 20, 24, 3), dtype=torch.uint8)
    wanted_NCHW = F.conv2d(F.pad(normalize(image_NHWC), (4, 4, 4, 4), mode="reflect"), weight)
    centred_NCHW = (image_NHWC.int() - torch.tensor(PIXEL_CENTRES)).permute(0, 3, 1, 2)
    assert torch.equal(centred_NCHW.bfloat16().int(), centred_NCHW)
    folded_weight, folded_bias = fold_pixels_into_stem(weight)
    got_NCHW = F.conv2d(F.pad(centred_NCHW.float(), (4, 4, 4, 4), mode="reflect"), folded_weight)
    assert torch.allclose(got_NCHW + folded_bias.view(-1, 1, 1), wanted_NCHW, atol=1e-4)
    difference_NCHW = got_NCHW - wanted_NCHW
    assert difference_NCHW.std(dim=(2, 3)).max() < 1e-4


@pytest.mark.parametrize("columns", HEAD_COLUMNS)
def test_the_folded_head_gives_rows_of_centred_pixels(columns):
    weight, bias, features_NCHW = drawn(3, 5, 9, 9), drawn(3), drawn(1, 5, 24, 28)
    std, mean = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_STD, IMAGENET_MEAN))
    wanted_CHW = (255 * (F.conv2d(features_NCHW, weight, bias) * std + mean))[0]
    folded_weight, folded_bias = fold_pixels_into_head(weight, bias, columns)
    folded_NCHW = F.conv2d(features_NCHW, folded_weight, folded_bias, stride=(1, columns))
    got_HWC = folded_NCHW.permute(0, 2, 3, 1).reshape(16, 20, 3) + OUTPUT_CENTRE
    assert torch.allclose(got_HWC, wanted_CHW.permute(1, 2, 0), atol=2e-2)
