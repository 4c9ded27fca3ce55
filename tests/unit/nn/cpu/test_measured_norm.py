"""Norm, ReLU and residual, compiled and in torch, against their definition in float64."""

from __future__ import annotations

import pytest
import torch

from stylemill.nn.cpu.channel_stats import ChannelStatistics, FoldedNorm
from stylemill.nn.cpu.measured_norm import MeasuredNorm

EPSILON = 1e-5


def drawn_norm(channels, relu):
    generator = torch.Generator().manual_seed(channels)
    draw = [torch.randn(channels, generator=generator) for _ in range(4)]
    norm = FoldedNorm(draw[0], draw[1], EPSILON, relu)
    return MeasuredNorm(norm, ChannelStatistics(draw[2], draw[3].square()))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("channels", [1, 5, 8, 13, 32, 100])
@pytest.mark.parametrize("then", ["relu", "residual", "both", "nothing"])
def test_rows_are_normalised_into_a_map_with_a_border(channels, then):
    measured = drawn_norm(channels, relu=then in ("relu", "both"))
    raw_HWC = torch.randn(5, 7, channels)
    residual_HWC = torch.randn(20, 7, channels)[::2][:5] if then in ("residual", "both") else None
    bordered_HWC = torch.full((10, 9, channels), torch.nan)
    measured.write_rows(raw_HWC, bordered_HWC[::2, 1:-1], residual_HWC)
    norm, statistics = measured.norm, measured.statistics
    scale_C = norm.weight_C / (statistics.variance_C.double() + EPSILON).sqrt()
    wanted_HWC = (raw_HWC - statistics.mean_C.double()) * scale_C + norm.bias_C
    if residual_HWC is not None:
        wanted_HWC += residual_HWC  # a block that adds a residual has no ReLU behind it
    elif norm.relu:
        wanted_HWC.clamp_(min=0)
    got_HWC = bordered_HWC[::2, 1:-1]
    assert (got_HWC - wanted_HWC).abs().max() < 1e-5 * (1 + wanted_HWC.abs().max())
    assert bordered_HWC[1::2].isnan().all() and bordered_HWC[:, [0, -1]].isnan().all()


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_not_a_number_is_not_hidden(sign):
    """The NaN that a processor computes has the sign of a negative number."""
    measured, raw_HWC = drawn_norm(16, relu=True), torch.randn(2, 3, 16)
    raw_HWC[1, 2, 3] = torch.tensor(torch.nan).copysign(torch.tensor(float(sign)))
    out_HWC = torch.zeros_like(raw_HWC)
    measured.write_rows(raw_HWC, out_HWC)
    assert out_HWC.isnan().sum() == 1 and out_HWC[1, 2, 3].isnan()
