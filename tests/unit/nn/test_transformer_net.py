from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stylemill.nn.architecture import PixelConvention
from stylemill.nn.norms import BatchNorm, build_norm
from stylemill.nn.transformer_net import (
    Architecture,
    ConvBlock,
    ResidualBlock,
    TransformerNet,
)
from tests.unit.nn.nets import plain_values, smooth_image, variant_net

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


def test_the_plain_network_takes_the_pixels_that_its_weights_were_trained_on():
    pixels = PixelConvention(input_scale=2.0, output_scale=150.0, channel_order="bgr", normalisation="none")
    net = variant_net(pixels=pixels, output="tanh")
    image_HWC = smooth_image(32, 40)
    own_NCHW = torch.from_numpy(image_HWC[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() * 2.0
    with torch.inference_mode():
        features_NCHW = own_NCHW
        for block in net.children():
            features_NCHW = block(features_NCHW)
    wanted_HWC = 150 * features_NCHW.tanh()[0].permute(1, 2, 0).numpy()[:, :, ::-1]
    assert np.abs(plain_values(net, image_HWC) - wanted_HWC).max() < 0.01


def test_a_fresh_pixel_shuffle_is_a_nearest_interpolation():
    torch.manual_seed(0)
    block = ConvBlock(4, 3, 3, upsample=True, normalize=False, relu=False, upsampling="shuffle")
    block.reset_parameters()
    out_NCHW = block(torch.randn(1, 4, 6, 6))
    assert torch.equal(out_NCHW, F.interpolate(out_NCHW[:, :, ::2, ::2], scale_factor=2))


def test_a_separable_network_is_smaller():
    full, separable = (
        sum(parameter.numel() for parameter in TransformerNet(Architecture(residual=residual)).parameters())
        for residual in ("full", "separable")
    )
    assert separable < full / 4


def test_a_batch_norm_gathers_statistics_in_training_and_ignores_what_is_not_finite():
    norm = BatchNorm(3).train()
    batch_NCHW = 2 + torch.randn(8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        norm(batch_NCHW)
    assert torch.allclose(norm.running_mean, batch_NCHW.mean(dim=(0, 2, 3)), atol=0.02)
    before = norm.running_mean.clone()
    norm(torch.full((8, 3, 4, 4), torch.nan))
    norm.eval()(batch_NCHW + 1)
    assert torch.equal(norm.running_mean, before)


def test_groups_divide_the_channels_of_any_width():
    assert build_norm("group", 12).num_groups == 4
    assert build_norm("group", 7).num_groups == 1
    assert build_norm("layer", 32).num_groups == 1


def test_each_image_of_a_batch_is_painted_in_its_own_style():
    net = TransformerNet(Architecture(width=0.25), num_styles=3).eval()
    net.init_weights(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    alone = []
    for style in range(3):
        single = TransformerNet(Architecture(width=0.25)).eval()
        single.load_state_dict(
            {key: tensor[style] if "norm" in key else tensor for key, tensor in net.state_dict().items()}
        )
        alone.append(single)
    batch_NCHW = torch.randn(4, 3, 32, 40, generator=generator)
    styles = [2, 0, 1, 2]
    with torch.no_grad():
        painted_NCHW = net(batch_NCHW, torch.tensor(styles))
        expected_NCHW = torch.cat([alone[style](batch_NCHW[n : n + 1]) for n, style in enumerate(styles)])
    torch.testing.assert_close(painted_NCHW, expected_NCHW)
    with pytest.raises(ValueError, match="needs the style of each image"):
        net(batch_NCHW)
    with pytest.raises(ValueError, match="has instance norms, not batch"):
        TransformerNet(Architecture(norm="batch"), num_styles=2)
