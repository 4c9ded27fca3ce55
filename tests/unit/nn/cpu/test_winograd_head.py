"""The last layer by Winograd's algorithm against torch's convolution in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stylemill.nn.cpu import layers
from stylemill.nn.cpu.compiled import LIBRARY
from stylemill.nn.cpu.winograd_head import WinogradHead
from stylemill.nn.fast_net import FastNet
from tests.unit.nn.nets import check_bits_of_parts, fast_net, plain_values, seeded_net, smooth_image

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler")


def drawn_head(channels):
    generator = torch.Generator().manual_seed(channels)
    weight = torch.randn(3, channels, 9, 9, generator=generator) / (9 * channels**0.5)
    return weight, torch.randn(3, generator=generator)


def drawn_map(channels, height, width):
    generator = torch.Generator().manual_seed(height * width)
    values = torch.randn(1, channels, height + 8, width + 8, generator=generator)
    return values.contiguous(memory_format=torch.channels_last)


SIZES = [(1, 1), (3, 4), (7, 25), (12, 24), (40, 31), (29, 1200), (5, 2100)]


@pytest.mark.parametrize("channels", [3, 8, 13, 16, 32])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_convolution(channels, size):
    (weight, bias), window_NCHW = drawn_head(channels), drawn_map(channels, *size)
    (got_NCHW,) = WinogradHead(weight, bias, LIBRARY)(window_NCHW)
    wanted_NCHW = F.conv2d(window_NCHW.double(), weight.double(), bias.double())
    assert got_NCHW.shape == wanted_NCHW.shape
    assert (got_NCHW - wanted_NCHW).abs().max() < 5e-5


@pytest.mark.parametrize("width", [5, 130, 512, 1100])
def test_bits_do_not_depend_on_how_the_rows_are_divided_among_calls(width):
    check_bits_of_parts(WinogradHead(*drawn_head(16), LIBRARY), drawn_map(16, 41, width))


def test_the_whole_network_equals_the_plain_one_with_and_without_it(monkeypatch):
    net, image_HWC = seeded_net(0.5), smooth_image(75, 110)
    with_it = fast_net(0.5)
    assert with_it.layers.kernels()[-2] == "16 to 3, 9x9/1x1, Winograd compiled"
    monkeypatch.setattr(layers, "LIBRARY", None)
    without = FastNet(net, precision="float32")
    assert without.layers.kernels()[-2:] == ["16 to 12, 9x12/1x4", "norms in torch"]
    for fast in (with_it, without):
        assert abs(fast.values(image_HWC) - plain_values(net, image_HWC)).max() < 0.02
