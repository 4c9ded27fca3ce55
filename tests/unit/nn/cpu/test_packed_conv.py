"""Packed convolutions against torch's plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stylemill.nn.cpu import packed_conv
from stylemill.nn.cpu.packed_conv import PackedConv
from stylemill.nn.precision import native_bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("width", [65, 69, 101, 129])
def test_a_wide_result_in_column_ranges_is_the_same(dtype, stride, width, monkeypatch):
    torch.manual_seed(width)  # kernel and stride cover these widths exactly, as those of the network do
    window_NCHW = torch.randn(1, 3, 13, width).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 3, 9, 9)
    conv = PackedConv(weight, None, stride=stride, dtype=dtype)
    in_one_NCHW = conv(window_NCHW)
    monkeypatch.setattr(packed_conv, "MAX_COLUMNS", 7)
    in_ranges_NCHW = conv(window_NCHW)
    assert in_ranges_NCHW.is_contiguous(memory_format=torch.channels_last)
    wanted_NCHW = F.conv2d(window_NCHW.float(), weight.to(dtype).float(), None, stride)
    scale = wanted_NCHW.abs().max()
    for got_NCHW in (in_one_NCHW, in_ranges_NCHW):
        assert got_NCHW.shape == wanted_NCHW.shape
        assert (got_NCHW.float() - wanted_NCHW).abs().max() <= (0.01 if dtype == torch.bfloat16 else 1e-5) * scale


def test_only_few_channels_are_computed_in_ranges(monkeypatch):
    """The kernels for many channels are as quick for any width, and copying their results would cost."""
    conv = PackedConv(torch.randn(8, 16, 3, 3), None, dtype=torch.float32)
    monkeypatch.setattr(packed_conv, "MAX_COLUMNS", 7)
    monkeypatch.setattr(PackedConv, "_run_in_ranges", lambda *_: pytest.fail("computed in ranges"))
    assert conv(torch.randn(1, 16, 3, 40)).shape == (1, 8, 1, 38)


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


@pytest.mark.parametrize("columns", [51, 256])
def test_a_kernel_that_is_wrong_only_for_wide_results_is_not_used(columns, monkeypatch):
    """As oneDNN chooses its kernels by width, a narrow trial says nothing about wide pictures."""
    run, threads = PackedConv._run, []

    def broken(self: PackedConv, window_NCHW: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        out_NCHW = run(self, window_NCHW)
        if out_NCHW.shape[3] >= columns:
            out_NCHW[..., -1, -1] = torch.nan
        return out_NCHW

    weight = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    assert PackedConv(weight, None, dtype=torch.bfloat16).trusted
    monkeypatch.setattr(PackedConv, "_run", broken)
    conv = PackedConv(weight, None, dtype=torch.bfloat16)
    assert not conv.trusted and "replaced" in conv.describe() and set(threads) == {1}
    window_NCHW = torch.ones(1, 16, 9, 400, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    assert conv(window_NCHW).isfinite().all()


def test_a_trial_that_raises_is_not_passed(monkeypatch):
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(PackedConv, "_run", broken)
    assert not PackedConv(torch.randn(8, 16, 3, 3), None, dtype=torch.bfloat16).trusted
