from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylemill.errors import ConfigError
from stylemill.nn.cpu.packed_conv import PackedConv
from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import native_bfloat16, resolve_precision
from tests.unit.nn.nets import drawn_image, plain_values, seeded_net, smooth_image


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((np.clip(a, 0, 255) - np.clip(b, 0, 255)) ** 2))


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "size"), [(0.1, (61, 94)), (0.5, (16, 16)), (1.0, (45, 38))], ids=str)
def test_float32_equals_the_plain_network(size, width, upsampling):
    net, image_HWC = seeded_net(width, upsampling), smooth_image(*size)
    fast = FastNet(net, precision="float32")
    difference = np.abs(fast.values(image_HWC) - plain_values(net, image_HWC)).max()
    assert difference < 0.02


def test_float32_equals_the_plain_network_over_many_strips(monkeypatch):
    monkeypatch.setattr("stylemill.nn.cpu.whole_image.STRIP_BYTES", 10_000)
    net, image_HWC = seeded_net(0.25), smooth_image(130, 70)
    for threads in (1, 3):
        fast = FastNet(net, precision="float32", num_threads=threads)
        assert np.abs(fast.values(image_HWC) - plain_values(net, image_HWC)).max() < 0.02


@pytest.mark.skipif(not native_bfloat16(), reason="this CPU has no native bfloat16")
@pytest.mark.parametrize(
    ("width", "upsampling"),
    [(1.0, "nearest"), (0.75, "nearest"), (0.5, "nearest"), (0.25, "nearest"), (0.1, "nearest"), (0.5, "bicubic")],
)
def test_bfloat16_is_close_to_the_plain_network(width, upsampling):
    net, image_HWC = seeded_net(width, upsampling), smooth_image(90, 61)
    fast = FastNet(net, precision="bfloat16")
    assert psnr_db(fast.stylize(image_HWC), plain_values(net, image_HWC)) > 40


@pytest.mark.skipif(not native_bfloat16(), reason="this CPU has no native bfloat16")
@pytest.mark.parametrize("channels", [2, 3, 8, 16, 24, 32, 48])
@pytest.mark.parametrize(("kernel_width", "stride"), [(12, (1, 4)), (10, (1, 2)), (9, (1, 1)), (3, (2, 2))])
def test_every_packed_kernel_computes_its_convolution(channels, kernel_width, stride):
    """Some kernels of oneDNN do not: such a one must not be used."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, channels, 9, kernel_width, generator=generator).bfloat16().float()
    window_NCHW = torch.randn(1, channels, 20, 136, generator=generator).bfloat16()
    conv = PackedConv(weight, None, stride=stride, dtype=torch.bfloat16)
    wanted_NCHW = F.conv2d(window_NCHW.float(), weight, None, stride)
    got_NCHW = conv(window_NCHW.contiguous(memory_format=torch.channels_last)).float()
    assert (got_NCHW - wanted_NCHW).abs().max() < 0.01 * wanted_NCHW.abs().max()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (137, 20, 201)])
@pytest.mark.parametrize(("width", "upsampling"), [(0.5, "nearest"), (1.0, "nearest"), (0.25, "bicubic")])
def test_an_image_of_one_colour_becomes_one_colour_in_bfloat16(width, upsampling, colour):
    net = seeded_net(width, upsampling)
    image_HWC = np.full((90, 121, 3), colour, np.uint8)
    painted_HWC = FastNet(net, precision="bfloat16").stylize(image_HWC)
    assert painted_HWC.shape == image_HWC.shape and (painted_HWC == painted_HWC[0, 0]).all()
    wanted_HWC = plain_values(net, image_HWC).clip(0, 255)
    assert np.abs(painted_HWC - wanted_HWC).max() <= 0.75


@pytest.mark.parametrize("upsampling", ["transposed", "shuffle"])
def test_what_makes_a_pattern_of_one_colour_makes_it_in_bfloat16_too(upsampling):
    net = seeded_net(0.5, upsampling)
    with torch.no_grad():  # as training does: fresh sub-pixel kernels are all alike
        for block in (net.up1, net.up2):
            block.conv.weight.mul_(
                1 + 0.3 * torch.sin(torch.arange(block.conv.weight.numel()).view_as(block.conv.weight))
            )
    image_HWC = np.full((64, 64, 3), (137, 20, 201), np.uint8)
    wanted_HWC = plain_values(net, image_HWC)
    assert wanted_HWC[16:48, 16:48].std(axis=(0, 1)).max() > 1.0
    assert np.abs(FastNet(net, precision="bfloat16").values(image_HWC) - wanted_HWC).mean() < 8.0


def test_one_pixel_of_another_colour_is_painted_as_any_image():
    net = seeded_net(0.25)
    image_HWC = np.full((64, 64, 3), 90, np.uint8)
    image_HWC[40, 20, 1] = 91
    painted_HWC = FastNet(net, precision="bfloat16").stylize(image_HWC)
    assert len(np.unique(painted_HWC.reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_bytes_do_not_depend_on_threads_or_batching(precision):
    net = seeded_net(0.5)
    images = np.stack([drawn_image(66, 91, seed) for seed in range(3)])
    alone = FastNet(net, precision=precision, num_threads=1)
    wanted = [alone.stylize(image).tobytes() for image in images]
    for threads in (1, 2, 3):
        fast = FastNet(net, precision=precision, num_threads=threads)
        assert [painted.tobytes() for painted in fast.stylize_batch(images)] == wanted
        assert fast.stylize(images[2]).tobytes() == wanted[2]


def test_the_number_of_torch_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    for threads in (1, 2):
        FastNet(seeded_net(), precision="float32", num_threads=threads).stylize(drawn_image(20, 20))
        assert torch.get_num_threads() == before
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == before


def test_rounding_and_clamping_are_those_of_the_values():
    net = seeded_net()
    with torch.no_grad():
        net.head.conv.weight.mul_(20)
    fast, image_HWC = FastNet(net, precision="float32"), smooth_image(64, 64)
    values_HWC = fast.values(image_HWC)
    assert values_HWC.min() < 0 and values_HWC.max() > 255
    assert np.array_equal(fast.stylize(image_HWC), np.clip(np.round(values_HWC), 0, 255).astype(np.uint8))


def test_a_read_only_or_strided_image_is_taken():
    fast = FastNet(seeded_net(), precision="float32")
    image_HWC = drawn_image(40, 40)
    read_only = image_HWC[:20, :24].copy()
    read_only.setflags(write=False)
    assert np.array_equal(fast.stylize(read_only), fast.stylize(image_HWC[:20, :24]))


@pytest.mark.parametrize("height_px", [1, 2, 3, 15, 16, 17, 67])
def test_every_odd_size_comes_back_in_its_own_size(height_px):
    fast = FastNet(seeded_net(width=0.05), precision="float32")
    for width_px in range(1, 68, 2):
        painted_HWC = fast.stylize(drawn_image(height_px, width_px))
        assert painted_HWC.shape == (height_px, width_px, 3) and painted_HWC.dtype == np.uint8
        assert painted_HWC.flags.c_contiguous


def test_the_given_network_is_not_touched():
    net = seeded_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    FastNet(net, precision="float32").stylize(drawn_image(20, 20))
    assert next(net.parameters()).requires_grad
    for key, value in net.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])


def test_precisions_and_devices_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="half"):
        resolve_precision("half")
    with pytest.raises(ConfigError, match="this machine has cpu"):
        resolve_precision("float32", "cuda:99")
    assert resolve_precision("auto") == ("bfloat16" if native_bfloat16() else "float32")
    assert resolve_precision("float32") == "float32"
    if not native_bfloat16():
        with pytest.raises(ConfigError, match="native"):
            resolve_precision("bfloat16")
