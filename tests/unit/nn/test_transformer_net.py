from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stylemill.nn.transformer_net import Architecture, ConvBlock, ResidualBlock, TransformerNet

UPSAMPLINGS = ["nearest", "bilinear", "bicubic"]


def test_the_layers_are_those_of_the_design():
    net = TransformerNet()
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items() if "conv.weight" in name}
    assert shapes["stem.conv.weight"] == (32, 3, 9, 9)
    assert shapes["down1.conv.weight"] == (64, 32, 3, 3)
    assert shapes["down2.conv.weight"] == (128, 64, 3, 3)
    assert shapes["residual5.block2.conv.weight"] == (128, 128, 3, 3)
    assert shapes["up1.conv.weight"] == (64, 128, 3, 3)
    assert shapes["up2.conv.weight"] == (32, 64, 3, 3)
    assert shapes["head.conv.weight"] == (3, 32, 9, 9)
    assert net.head.norm is None and not net.head.relu
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_679_235


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("width", [0.1, 0.5, 1.0])
def test_output_has_the_size_of_the_input(width, upsampling):
    net = TransformerNet(Architecture(width=width, upsampling=upsampling))
    assert net(torch.zeros(2, 3, 16, 20)).shape == (2, 3, 16, 20)


def test_width_scales_hidden_channels_only():
    architecture = Architecture(width=0.5)
    net = TransformerNet(architecture)
    assert [architecture.channels(base) for base in (32, 64, 128)] == [16, 32, 64]
    assert net.stem.conv.in_channels == net.head.conv.out_channels == 3
    assert Architecture(width=0.001).channels(32) == 1


@pytest.mark.parametrize("width", [0, -1.0, 4.5])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ValueError, match="width"):
        Architecture(width=width)


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="upsampling"):
        Architecture(upsampling="lanczos")


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_a_block_is_interpolation_padding_convolution_norm_relu(upsampling):
    torch.manual_seed(0)
    block = ConvBlock(4, 5, 3, upsample=True, upsampling=upsampling)
    features_NCHW = torch.randn(1, 4, 6, 7)
    align_corners = None if upsampling == "nearest" else False
    doubled = F.interpolate(features_NCHW, scale_factor=2, mode=upsampling, align_corners=align_corners)
    raw = F.conv2d(nn.ReflectionPad2d(1)(doubled), block.conv.weight, block.conv.bias)
    mean, variance = raw.mean((2, 3), keepdim=True), raw.var((2, 3), unbiased=False, keepdim=True)
    assert torch.allclose(block(features_NCHW), F.relu((raw - mean) / (variance + 1e-5).sqrt()), atol=1e-5)


def test_a_residual_block_adds_its_input_and_ends_without_relu():
    torch.manual_seed(0)
    block = ResidualBlock(4)
    features_NCHW = torch.randn(1, 4, 8, 8)
    branch = block.block2(block.block1(features_NCHW))
    assert torch.equal(block(features_NCHW), features_NCHW + branch)
    assert branch.min() < 0


def test_weights_depend_on_the_seed_alone_and_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    one, other = TransformerNet(Architecture(width=0.1)), TransformerNet(Architecture(width=0.1))
    state = torch.get_rng_state()
    one.init_weights(7)
    torch.manual_seed(2)
    state_of_two = torch.get_rng_state()
    other.init_weights(7)
    assert torch.equal(torch.get_rng_state(), state_of_two) and not torch.equal(state, state_of_two)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    other.init_weights(8)
    assert not torch.equal(one.stem.conv.weight, other.stem.conv.weight)
