from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch

from stylemill.nn.cpu.channel_stats import ChannelSums, StatisticsAccumulator, sum_channels


def channels_last(values_HWC, dtype=torch.float32):
    return torch.from_numpy(values_HWC).to(dtype).permute(2, 0, 1)[None]


@pytest.fixture(params=[1, 2])
def torch_threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-6), (3.0, 1e-5), (50.0, 2e-3)])
def test_sums_of_pieces_give_the_statistics_of_the_whole_map(dtype, offset, tolerance, torch_threads):
    """With one thread, as the engine runs it, a float32 sum has twice the terms."""
    values_HWC = np.random.default_rng(0).normal(offset, 1.0, (300, 200, 5)).astype(np.float32)
    whole_NCHW = channels_last(values_HWC, dtype)
    accumulator = StatisticsAccumulator()
    for first in range(0, 300, 70):
        accumulator.add(sum_channels(whole_NCHW[:, :, first : first + 35]))
        accumulator.add(sum_channels(whole_NCHW[:, :, first + 35 : first + 70]) if first < 265 else [])
    exact = whole_NCHW.double()
    mean_C, variance_C = astuple(accumulator.statistics())
    assert accumulator.count == 60_000
    assert torch.allclose(mean_C.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    assert torch.allclose(variance_C.double(), exact.var((0, 2, 3), unbiased=False), rtol=tolerance * 2 / torch_threads)


def test_no_digits_are_lost_over_a_hundred_million_pixels():
    """1,600 pieces of 65,536 pixels whose mean is 10 deviations away from zero."""
    rng = np.random.default_rng(1)
    piece_HWC = rng.normal(10.0, 1.0, (256, 256, 4)).astype(np.float32)
    sums = sum_channels(channels_last(piece_HWC))
    accumulator = StatisticsAccumulator()
    for _ in range(16):
        accumulator.add(sums * 100)
    assert accumulator.count == 1600 * 65_536
    exact = piece_HWC.astype(np.float64)
    mean_C, variance_C = astuple(accumulator.statistics())
    assert np.allclose(mean_C, exact.mean((0, 1)), rtol=5e-7)
    assert np.allclose(variance_C, exact.var((0, 1)), rtol=3e-5)


def test_the_same_order_gives_the_same_bits():
    pieces = [
        ChannelSums(7, torch.zeros(2), torch.tensor([1.0 + k, 2.0]), torch.tensor([9.0, 3.0 + k])) for k in range(50)
    ]
    one, other = StatisticsAccumulator(), StatisticsAccumulator()
    one.add(pieces)
    other.add(pieces)
    assert one.mean_C.tobytes() == other.mean_C.tobytes()
    assert one.deviations_C.tobytes() == other.deviations_C.tobytes()


def test_constant_channels_have_no_variance():
    accumulator = StatisticsAccumulator()
    accumulator.add(sum_channels(torch.full((1, 3, 50, 60), 7.25).to(memory_format=torch.channels_last)))
    mean_C, variance_C = astuple(accumulator.statistics())
    assert mean_C.tolist() == [7.25] * 3 and variance_C.max() < 1e-9
