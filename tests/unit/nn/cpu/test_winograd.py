"""Winograd's algorithm, compiled and in torch, against torch's convolution in float64."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from stylemill.nn.cpu import winograd
from stylemill.nn.cpu.compiled import LIBRARY
from stylemill.nn.cpu.folding import fold_block
from stylemill.nn.cpu.layers import prepare_layers
from stylemill.nn.cpu.thread_team import SHARED_BUFFERS
from stylemill.nn.cpu.winograd import WinogradConv, can_be_winograd, joined_kernel, winograd_conv
from stylemill.nn.transformer_net import Architecture, TransformerNet
from tests.unit.nn.nets import check_bits_of_parts, fast_net, plain_values, seeded_net, smooth_image


def drawn_map(channels, height, width, seed=0):
    """The padded input of a map of ``height`` x ``width``."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(1, channels, height + 2, width + 2, generator=generator)
    return values.contiguous(memory_format=torch.channels_last)


def drawn_kernel(out_channels, in_channels, seed=1):
    values = torch.randn(out_channels, in_channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return values / (3 * in_channels**0.5)


def test_the_transforms_were_compiled_where_a_compiler_is():
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    assert LIBRARY is not None


@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (8, 16), (32, 13), (48, 64), (130, 32)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (4, 4), (5, 3), (9, 130), (33, 18), (70, 37)], ids=str)
def test_equals_the_convolution(form, channels, size):
    window_NCHW, weight = drawn_map(channels[0], *size), drawn_kernel(channels[1], channels[0])
    (got_NCHW,) = WinogradConv(weight)(window_NCHW)
    wanted_NCHW = F.conv2d(window_NCHW.double(), weight.double())
    assert got_NCHW.shape == wanted_NCHW.shape
    assert got_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert (got_NCHW - wanted_NCHW).abs().max() < 1e-4


def test_more_tiles_in_a_row_than_are_computed_at_once(form, monkeypatch):
    weight, window_NCHW = drawn_kernel(16, 16), drawn_map(16, 9, 203)
    monkeypatch.setattr(winograd, "_UNIT_BYTES", 36 * 32 * 4 * 20)
    conv = WinogradConv(weight)
    assert conv.rows_per_group(203) == 4
    (got_NCHW,) = conv(window_NCHW)
    assert (got_NCHW - F.conv2d(window_NCHW.double(), weight.double())).abs().max() < 1e-4


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_a_folded_upsampling_is_that_of_the_plain_network(form, upsampling):
    net = TransformerNet(Architecture(width=0.5, upsampling=upsampling)).eval()
    net.init_weights(3)
    block = fold_block(net.up2)
    assert can_be_winograd(block)
    low_NCHW = torch.randn(1, 32, 13, 10, generator=torch.Generator().manual_seed(0))
    padded_NCHW = F.pad(low_NCHW, (1, 1, 1, 1), mode="replicate" if upsampling == "nearest" else "constant")
    conv = winograd_conv(joined_kernel(block.kernels), scale=2)
    even_odd = conv(padded_NCHW.contiguous(memory_format=torch.channels_last))
    got_NCHW = torch.stack(even_odd, dim=3).flatten(2, 3)
    with torch.inference_mode():
        if upsampling == "nearest":
            doubled_NCHW = F.pad(F.interpolate(low_NCHW, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode="reflect")
            wanted_NCHW = F.conv2d(doubled_NCHW, net.up2.conv.weight)
        else:
            wanted_NCHW = F.conv_transpose2d(low_NCHW, net.up2.conv.weight, stride=2, padding=1, output_padding=1)
    assert got_NCHW.shape == wanted_NCHW.shape == (1, conv.out_channels, 26, 20)
    assert (got_NCHW - wanted_NCHW).abs().max() < 1e-4


@pytest.mark.parametrize("width", [5, 37, 128, 700])
def test_bits_do_not_depend_on_how_the_rows_are_divided_among_calls(form, width):
    check_bits_of_parts(WinogradConv(drawn_kernel(64, 64)), drawn_map(64, 35, width))


@pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler")
def test_what_is_computed_with_it():
    def algorithms(**fields):
        net = TransformerNet(Architecture(**fields)).eval()
        return ["Winograd" in line for line in prepare_layers(net, torch.float32).kernels()[:-1]]

    assert algorithms(width=1.0) == [False] * 3 + [True] * 13
    assert algorithms(width=0.5, upsampling="bicubic") == [False] * 3 + [True] * 13
    assert not any(algorithms(width=0.5, residual="separable")[3:13])
    # They turn one colour into a pattern, so such pictures go through the same layers as others.
    assert not any(algorithms(width=0.5, upsampling="shuffle") + algorithms(width=0.5, upsampling="transposed"))
    assert algorithms(width=0.1) == [False] * 17 + [True]
    in_bfloat16 = prepare_layers(seeded_net(1.0), torch.bfloat16).kernels()
    assert not any("Winograd" in line for line in in_bfloat16)


def test_in_torch_the_whole_network_equals_the_plain_one(monkeypatch):
    net, image_HWC = seeded_net(0.5), smooth_image(75, 110)
    compiled_HWC = fast_net(0.5).values(image_HWC)
    monkeypatch.setattr(winograd, "LIBRARY", None)
    in_torch_HWC = fast_net(0.5).values(image_HWC)
    for got_HWC in (compiled_HWC, in_torch_HWC):
        assert abs(got_HWC - plain_values(net, image_HWC)).max() < 0.02


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_a_number_spreads_to_its_tile(form, value):
    window_NCHW = drawn_map(32, 9, 9)
    window_NCHW[0, 3, 4, 4] = value
    (got_NCHW,) = WinogradConv(drawn_kernel(32, 32))(window_NCHW)
    assert not got_NCHW[:, :, 2:5, 2:5].isfinite().any()


def test_other_layouts_than_dense_rows_are_refused(form):
    conv = WinogradConv(drawn_kernel(8, 8))
    with pytest.raises(ValueError, match="expected 8 channels, got 5"):
        conv(drawn_map(5, 4, 4))
    if form == "compiled":
        with pytest.raises(ValueError, match="a float32 map with dense rows"):
            conv(drawn_map(8, 4, 4).double())


def test_a_part_of_a_map_is_written_and_nothing_beside_it(form):
    window_NCHW, conv = drawn_map(16, 13, 21), WinogradConv(drawn_kernel(16, 16))
    (wanted_NCHW,) = conv(window_NCHW)
    canvas_SHWC = torch.full((1, 17, 21, 16), torch.nan)
    conv.write(window_NCHW[0].permute(1, 2, 0), canvas_SHWC[:, 2:15])
    assert torch.equal(canvas_SHWC[0, 2:15], wanted_NCHW[0].permute(1, 2, 0))
    assert canvas_SHWC[:, :2].isnan().all() and canvas_SHWC[:, 15:].isnan().all()


def test_memory_of_other_layers_is_not_taken_for_results(form, monkeypatch):
    window_NCHW, conv = drawn_map(32, 20, 30), WinogradConv(drawn_kernel(32, 32))
    (wanted_NCHW,) = conv(window_NCHW)
    dirty = torch.full((1 << 24,), torch.nan).view(torch.uint8)
    monkeypatch.setattr(SHARED_BUFFERS, "take", lambda num_bytes: dirty[:num_bytes].clone())
    (got_NCHW,) = conv(window_NCHW)
    assert torch.equal(got_NCHW, wanted_NCHW)


def test_threads_share_one_convolution(form):
    window_NCHW, conv = drawn_map(32, 64, 48), WinogradConv(drawn_kernel(32, 32))
    (wanted_NCHW,) = conv(window_NCHW)
    with ThreadPoolExecutor(4) as pool:
        for (got_NCHW,) in pool.map(conv, [window_NCHW] * 16):
            assert torch.equal(got_NCHW, wanted_NCHW)


def test_the_description_says_which_transforms_run(form):
    (line,) = WinogradConv(drawn_kernel(8, 8)).describe()
    assert line == f"8 to 8, 3x3/1x1, Winograd {'compiled' if form == 'compiled' else 'in torch'}"
