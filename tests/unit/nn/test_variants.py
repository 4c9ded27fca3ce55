"""Every variant of the network in its plain, fast and tiled form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylemill.nn.architecture import Architecture, PixelConvention
from stylemill.nn.cpu.folding import OUTPUT_CENTRE
from stylemill.nn.fast_net import FastNet
from stylemill.nn.gpu import FoldedNet
from stylemill.nn.precision import native_bfloat16
from stylemill.nn.tiled.stylize import tiled_values
from stylemill.nn.transformer_net import BatchNorm, ConvBlock, TransformerNet, build_norm
from tests.unit.nn.nets import plain_values, smooth_image
from tests.unit.nn.variants import VARIANTS, variant_net

PLENTY, ONE_ROW = 1 << 40, 1


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fast_form_is_the_plain_one(name, monkeypatch):
    monkeypatch.setattr("stylemill.nn.cpu.whole_image.STRIP_BYTES", 10_000)
    net = variant_net(**VARIANTS[name])
    for size in ((70, 93), (16, 16)):
        image_HWC = smooth_image(*size)
        wanted_HWC = plain_values(net, image_HWC)
        assert wanted_HWC.std() > 2
        for threads in (1, 2):
            fast = FastNet(net, precision="float32", num_threads=threads)
            assert np.abs(fast.values(image_HWC) - wanted_HWC).max() < 0.02


@pytest.mark.parametrize("name", VARIANTS)
def test_the_tiled_form_is_the_fast_one(name):
    fast, image_HWC = FastNet(variant_net(**VARIANTS[name]), precision="float32", num_threads=2), smooth_image(61, 94)
    whole_HWC = fast.values(image_HWC)
    for band_bytes in (ONE_ROW, 50_000):
        tiled_HWC = tiled_values(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=band_bytes)
        assert np.abs(tiled_HWC - whole_HWC).max() < 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_the_module_for_gpus_is_the_plain_network(name):
    net, images = variant_net(**VARIANTS[name]), [smooth_image(32, 44), smooth_image(32, 44)[::-1].copy()]
    values_NHWC = FoldedNet(net, torch.float32).values(torch.from_numpy(np.stack(images))).numpy() + OUTPUT_CENTRE
    for image_HWC, values_HWC in zip(images, values_NHWC, strict=True):
        assert np.abs(values_HWC - plain_values(net, image_HWC)).max() < 0.02


@pytest.mark.skipif(not native_bfloat16(), reason="this CPU has no native bfloat16")
@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_is_close_to_the_plain_network(name):
    net, image_HWC = variant_net(width=0.5, **VARIANTS[name]), smooth_image(90, 61)
    painted_HWC = FastNet(net, precision="bfloat16").stylize(image_HWC).astype(float)
    error = np.mean((painted_HWC - np.clip(plain_values(net, image_HWC), 0, 255)) ** 2)
    assert 10 * np.log10(255**2 / error) > 40


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


def test_a_batch_norm_has_no_statistics_to_take(monkeypatch):
    def never(*_):
        raise AssertionError("statistics were taken")

    for module in ("cpu.whole_image", "tiled.passes"):
        monkeypatch.setattr(f"stylemill.nn.{module}.sum_piece", never)
    fast, image_HWC = FastNet(variant_net(norm="batch"), precision="float32"), smooth_image(40, 40)
    fast.stylize(image_HWC)
    tiled_values(fast, image_HWC, max_memory_bytes=PLENTY)


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


@pytest.mark.parametrize(
    ("field", "value"), [("norm", "none"), ("residual", "dense"), ("output", "relu"), ("upsampling", "lanczos")]
)
def test_an_unknown_word_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Architecture(**{field: value})


@pytest.mark.parametrize(
    "fields", [{"input_scale": 0.0}, {"output_scale": float("nan")}, {"channel_order": "grb"}, {"normalisation": "z"}]
)
def test_an_impossible_pixel_convention_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        PixelConvention(**fields)


def test_a_default_architecture_is_written_as_it_always_was():
    assert Architecture().to_mapping() == {"width": 1.0, "upsampling": "nearest"}
    for fields in VARIANTS.values():
        architecture = Architecture(**fields)
        assert Architecture.from_mapping(architecture.to_mapping()) == architecture
    with pytest.raises(ValueError, match="newer"):
        Architecture.from_mapping({"width": 1.0, "attention": True})
