"""A norm with the statistics of the map that it normalises, and the step behind it: ReLU, residual, or neither."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics, FoldedNorm
from stylemill.nn.cpu.compiled import LIBRARY, rows_pointer
from stylemill.nn.cpu.padded_map import relu_into

_PLAIN, _RELU, _RESIDUAL = range(3)


@dataclass(frozen=True)
class MeasuredNorm:
    """Normalises rows of raw results.

    Args:
        norm: of the layer.
        statistics: as ``FoldedNorm.pool`` returns them, or those of the training.
    """

    norm: FoldedNorm
    statistics: ChannelStatistics

    @cached_property
    def _gain_offset_C(self) -> tuple[Tensor, Tensor]:
        variance_C, mean_C = self.statistics.variance_C.double(), self.statistics.mean_C.double()
        gain_C = self.norm.weight_C / (variance_C + self.norm.epsilon).sqrt()
        return gain_C.float(), (self.norm.bias_C - mean_C * gain_C).float()

    def write_rows(self, raw_HWC: Tensor, out_HWC: Tensor, residual_HWC: Tensor | None = None) -> None:
        """Write normalised rows with a residual added, or else after the layer's ReLU if it has one.

        Args:
            raw_HWC: (n, W, C) raw results, rows of contiguous pixels.
            out_HWC: (n, W, C) to write into, the same; not the memory of the others.
            residual_HWC: (n, W, C) to add, the same; or None.
        """
        if LIBRARY is None or raw_HWC.dtype != torch.float32:
            self._write_in_torch(raw_HWC, out_HWC, residual_HWC)
            return
        gain_C, offset_C = self._gain_offset_C
        relu = _RELU if self.norm.relu else _PLAIN
        other_HWC = raw_HWC if residual_HWC is None else residual_HWC
        LIBRARY.stylemill_normalise(
            rows_pointer(raw_HWC),
            raw_HWC.stride(0),
            *raw_HWC.shape,
            gain_C.data_ptr(),
            offset_C.data_ptr(),
            relu if residual_HWC is None else _RESIDUAL,
            rows_pointer(other_HWC),
            other_HWC.stride(0),
            rows_pointer(out_HWC),
            out_HWC.stride(0),
        )

    def _write_in_torch(self, raw_HWC: Tensor, out_HWC: Tensor, residual_HWC: Tensor | None) -> None:
        normal_NCHW = torch.native_batch_norm(
            raw_HWC.permute(2, 0, 1)[None],
            self.norm.weight_C,
            self.norm.bias_C,
            self.statistics.mean_C,
            self.statistics.variance_C,
            False,
            0.0,
            self.norm.epsilon,
        )[0]
        normal_HWC = normal_NCHW.permute(0, 2, 3, 1)[0]
        if residual_HWC is not None:
            torch.add(normal_HWC, residual_HWC, out=out_HWC)
        elif self.norm.relu:
            relu_into(out_HWC, normal_HWC)
        else:
            out_HWC.copy_(normal_HWC)
