from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import native_bfloat16
from stylemill.nn.tiled.stylize import tiled_values
from tests.unit.nn.nets import (
    VARIANTS,
    drawn_image,
    fast_net,
    fast_variant,
    plain_values,
    seeded_net,
    smooth_image,
    variant_net,
)


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((np.clip(a, 0, 255) - np.clip(b, 0, 255)) ** 2))


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "size"), [(0.1, (61, 94)), (0.5, (16, 16)), (1.0, (45, 38))], ids=str)
def test_float32_equals_the_plain_network(size, width, upsampling):
    net, image_HWC = seeded_net(width, upsampling), smooth_image(*size)
    assert np.abs(fast_net(width, upsampling).values(image_HWC) - plain_values(net, image_HWC)).max() < 0.02


def test_float32_equals_the_plain_network_over_many_strips(monkeypatch):
    monkeypatch.setattr("stylemill.nn.cpu.whole_image.STRIP_BYTES", 10_000)
    net, image_HWC = seeded_net(0.25), smooth_image(130, 70)
    for threads in (1, 3):
        fast = fast_net(num_threads=threads)
        assert np.abs(fast.values(image_HWC) - plain_values(net, image_HWC)).max() < 0.02


@pytest.mark.skipif(not native_bfloat16(), reason="this CPU has no native bfloat16")
@pytest.mark.parametrize(
    ("width", "upsampling"),
    [(1.0, "nearest"), (0.75, "nearest"), (0.5, "nearest"), (0.25, "nearest"), (0.1, "nearest"), (0.5, "bicubic")],
)
def test_bfloat16_is_close_to_the_plain_network(width, upsampling):
    net, image_HWC = seeded_net(width, upsampling), smooth_image(90, 61)
    fast = fast_net(width, upsampling, "bfloat16")
    assert psnr_db(fast.stylize(image_HWC), plain_values(net, image_HWC)) > 40


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (137, 20, 201)])
@pytest.mark.parametrize(("width", "upsampling"), [(0.5, "nearest"), (1.0, "nearest"), (0.25, "bicubic")])
def test_an_image_of_one_colour_becomes_one_colour_in_bfloat16(width, upsampling, colour):
    net = seeded_net(width, upsampling)
    image_HWC = np.full((90, 121, 3), colour, np.uint8)
    painted_HWC = fast_net(width, upsampling, "bfloat16").stylize(image_HWC)
    assert painted_HWC.shape == image_HWC.shape and (painted_HWC == painted_HWC[0, 0]).all()
    wanted_HWC = plain_values(net, image_HWC).clip(0, 255)
    assert np.abs(painted_HWC - wanted_HWC).max() <= 0.75


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (137, 20, 201)])
@pytest.mark.parametrize(("width", "upsampling"), [(0.5, "nearest"), (1.0, "nearest"), (0.5, "bicubic")])
def test_an_image_of_one_colour_becomes_one_to_the_last_bit_in_float32(width, upsampling, colour):
    """Winograd's tiles round their 16 results differently, and norms amplify any difference on a flat map."""
    image_HWC = np.full((90, 121, 3), colour, np.uint8)
    fast = fast_net(width, upsampling)
    patch_HWC = np.empty((8, 8, 3), np.float32)
    fast.flat_painter._exact_pass.run(image_HWC[:8, :8], patch_HWC)
    assert np.ptp(patch_HWC, axis=(0, 1)).max() < 0.75  # one of its pixels is taken for all
    for values_HWC in (fast.values(image_HWC), tiled_values(fast, image_HWC, max_memory_bytes=1 << 40)):
        assert (values_HWC == values_HWC[0, 0]).all()
        # A variance of zero makes even the plain network's pixels differ by some tenths.
        assert np.abs(values_HWC - plain_values(seeded_net(width, upsampling), image_HWC)).max() < 0.75


@pytest.mark.parametrize("upsampling", ["transposed", "shuffle"])
def test_networks_that_turn_one_colour_into_a_pattern_do_so_in_bfloat16_too(upsampling):
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
    image_HWC = np.full((64, 64, 3), 90, np.uint8)
    image_HWC[40, 20, 1] = 91
    painted_HWC = fast_net(precision="bfloat16").stylize(image_HWC)
    assert len(np.unique(painted_HWC.reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.usefixtures("two_torch_threads")
def test_bytes_do_not_depend_on_threads_or_batching(precision):
    images = np.stack([drawn_image(66, 91, seed) for seed in range(3)])
    alone = fast_net(0.5, precision=precision, num_threads=1)
    wanted = [alone.stylize(image).tobytes() for image in images]
    for threads in (1, 2, 3):
        fast = fast_net(0.5, precision=precision, num_threads=threads)
        assert [painted.tobytes() for painted in fast.stylize_batch(images)] == wanted
        assert fast.stylize(images[2]).tobytes() == wanted[2]


@pytest.mark.usefixtures("two_torch_threads")
def test_the_number_of_torch_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    assert before == 2
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
    fast, image_HWC = fast_net(), drawn_image(40, 40)
    read_only = image_HWC[:20, :24].copy()
    read_only.setflags(write=False)
    assert np.array_equal(fast.stylize(read_only), fast.stylize(image_HWC[:20, :24]))


@pytest.mark.parametrize("height_px", [1, 2, 3, 15, 16, 17, 67])
def test_every_odd_size_comes_back_in_its_own_size(height_px):
    for width_px in (*range(1, 36, 2), 66, 67):
        painted_HWC = fast_net(width=0.05).stylize(drawn_image(height_px, width_px))
        assert painted_HWC.shape == (height_px, width_px, 3) and painted_HWC.dtype == np.uint8
        assert painted_HWC.flags.c_contiguous


def test_the_given_network_is_not_touched():
    net = seeded_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    FastNet(net, precision="float32").stylize(drawn_image(20, 20))
    assert next(net.parameters()).requires_grad
    for key, value in net.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_float32_equals_the_plain_network(name, monkeypatch):
    monkeypatch.setattr("stylemill.nn.cpu.whole_image.STRIP_BYTES", 10_000)
    net = variant_net(**VARIANTS[name])
    for size in ((70, 93), (16, 16)):
        image_HWC = smooth_image(*size)
        wanted_HWC = plain_values(net, image_HWC)
        assert wanted_HWC.std() > 2
        for threads in (1, 2):
            assert np.abs(fast_variant(name, threads).values(image_HWC) - wanted_HWC).max() < 0.02


@pytest.mark.skipif(not native_bfloat16(), reason="this CPU has no native bfloat16")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_bfloat16_is_close_to_the_plain_network(name):
    net, image_HWC = variant_net(width=0.5, **VARIANTS[name]), smooth_image(90, 61)
    painted_HWC = FastNet(net, precision="bfloat16").stylize(image_HWC).astype(float)
    error = np.mean((painted_HWC - np.clip(plain_values(net, image_HWC), 0, 255)) ** 2)
    assert 10 * np.log10(255**2 / error) > 40


def test_a_batch_norm_has_no_statistics_to_take(monkeypatch):
    def never(*_):
        raise AssertionError("statistics were taken")

    for module in ("cpu.whole_image", "tiled.passes"):
        monkeypatch.setattr(f"stylemill.nn.{module}.sum_channels", never)
    fast, image_HWC = FastNet(variant_net(norm="batch"), precision="float32"), smooth_image(40, 40)
    fast.stylize(image_HWC)
    tiled_values(fast, image_HWC, max_memory_bytes=1 << 40)
