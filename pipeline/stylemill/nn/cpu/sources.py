"""The inputs of a layer, row by row: the pixels of an image, or the results of the layer before.

A layer stores raw convolution results and their statistics. The next layer applies norm, ReLU, residual and padding
while it reads them, strip by strip, so that the data is still in the cache.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylemill.nn.cpu.folding import PIXEL_CENTRES
from stylemill.nn.cpu.measured_norm import MeasuredNorm
from stylemill.nn.cpu.padded_map import PaddedMap
from stylemill.nn.pixels import padded_side_px
from stylemill.nn.transformer_net import IMAGE_CHANNELS

INTERPOLATION_REACH_PX = 3
"""Low-resolution rows above and below that a bicubic interpolation of a row reads, plus one."""


class RowStore(Protocol):
    """Memory for some rows of a map, without their border."""

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        """Return the writable (n, W, C) view of the rows ``range(first, last, step)``."""


class Source(Protocol):
    """A feature map that can write any of its rows into a ``RowStore``."""

    height: int
    width: int
    channels: int

    step: int
    """Rows are computed in groups of this size; reading whole groups avoids computing them twice."""

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Write the rows ``range(first, last)`` of the map into ``target``."""


class PixelSource:
    """The rows of an 8-bit image, padded as by ``pad_to_network`` without a copy, and centred around zero.

    Args:
        image_HWC: (H, W, 3) uint8; never written to.
        dtype: of the network, float32 or bfloat16; integers up to 255 are exact in both.
    """

    step = 1

    def __init__(self, image_HWC: NDArray[np.uint8], dtype: torch.dtype) -> None:
        rows_px, columns_px, self.channels = image_HWC.shape
        self.height, self.width = padded_side_px(rows_px), padded_side_px(columns_px)
        self._image_HWC = image_HWC
        self._row_of = np.pad(np.arange(rows_px), (0, self.height - rows_px), mode="reflect")
        self._column_of = np.pad(np.arange(columns_px), (0, self.width - columns_px), mode="reflect")
        self._centres = torch.tensor(PIXEL_CENTRES, dtype=dtype).repeat(columns_px)

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Write centred pixels."""
        rows_px, columns_px, _ = self._image_HWC.shape
        # Copied band by band: torch does not accept memory that numpy marks as read-only.
        rows = slice(first, last) if last <= rows_px else self._row_of[first:last]
        band_HWC = np.array(self._image_HWC[rows])
        centred = torch.from_numpy(band_HWC.reshape(last - first, -1)).to(self._centres.dtype)
        centred.sub_(self._centres)
        out_HWC = target.rows(first, last)
        out_HWC[:, :columns_px] = centred.view(last - first, columns_px, IMAGE_CHANNELS)
        for column in range(columns_px, self.width):
            out_HWC[:, column] = out_HWC[:, int(self._column_of[column])]


class RawMap:
    """The results of a layer: raw convolution results in strips, and the statistics over all of them.

    Args:
        strips: for every strip of ``rows_per_strip`` phase rows, one (1, C, n, W) channels-last tensor per phase.
        rows_per_strip: phase rows of every strip but the last.
        height: total of output rows.
        norm: the layer's norm, with the statistics of the whole map.
    """

    def __init__(
        self,
        strips: list[list[Tensor]],
        rows_per_strip: int,
        height: int,
        norm: MeasuredNorm,
    ) -> None:
        self.height, self.step = height, len(strips[0])
        self.channels, self.width = strips[0][0].shape[1], strips[0][0].shape[3]
        self._strips, self._rows_per_strip = strips, rows_per_strip
        self._norm = norm
        self._residual: PaddedMap | None = None

    def add_to(self, residual: PaddedMap) -> None:
        """Add the rows of ``residual`` to the normalised rows (of a layer without ReLU)."""
        self._residual = residual

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Write normalised rows, with the layer's ReLU or residual."""
        num_phases = len(self._strips[0])
        rows_per_strip = self._rows_per_strip * num_phases
        for index in range(first // rows_per_strip, -(-last // rows_per_strip)):
            strip_first = index * rows_per_strip
            for phase, raw_NCHW in enumerate(self._strips[index]):
                low = max(0, -(-(first - strip_first - phase) // num_phases))
                high = min(raw_NCHW.shape[2], -(-(last - strip_first - phase) // num_phases))
                if low < high:
                    self._write(target, raw_NCHW[:, :, low:high], strip_first + low * num_phases + phase, num_phases)

    def _write(self, target: RowStore, raw_NCHW: Tensor, first: int, step: int) -> None:
        last = first + step * (raw_NCHW.shape[2] - 1) + 1
        residual_HWC = None if self._residual is None else self._residual.rows(first, last, step)
        self._norm.write_rows(raw_NCHW[0].permute(1, 2, 0), target.rows(first, last, step), residual_HWC)


class InterpolatedSource:
    """Another source at twice the size, bilinear or bicubic, which cannot be folded exactly.

    Args:
        source: the map at low resolution.
        mode: an interpolation mode of torch; half-pixel centres, clamped at the borders.
        dtype: of the map.
    """

    step = 2

    def __init__(self, source: Source, mode: str, dtype: torch.dtype) -> None:
        self.height, self.width, self.channels = source.height * 2, source.width * 2, source.channels
        self._source, self._mode, self._dtype = source, mode, dtype

    def write_rows(self, target: RowStore, first: int, last: int) -> None:
        """Interpolate rows from the low-resolution rows that they need."""
        low_first = max(0, first // 2 - INTERPOLATION_REACH_PX)
        low_last = min(self._source.height, -(-last // 2) + INTERPOLATION_REACH_PX)
        low_NCHW = self._low_rows(low_first, low_last)
        high_NCHW = F.interpolate(low_NCHW, scale_factor=2, mode=self._mode, align_corners=False)
        high_HWC = high_NCHW.permute(0, 2, 3, 1)[0]
        target.rows(first, last).copy_(high_HWC[first - 2 * low_first : last - 2 * low_first])

    def _low_rows(self, first: int, last: int) -> Tensor:
        """Return the (1, C, n, W) low-resolution rows ``range(first, last)``."""
        low = _PartialMap(first, last, self._source, self._dtype)
        self._source.write_rows(low, first, last)
        return low.all_NCHW()


class _PartialMap(PaddedMap):
    """Some rows of a map, numbered as in the whole map, without a border."""

    def __init__(self, first: int, last: int, source: Source, dtype: torch.dtype) -> None:
        size = (last - first, source.width, source.channels, 0)
        buffer = torch.empty(PaddedMap.num_bytes(*size, dtype), dtype=torch.uint8)
        super().__init__(buffer, *size, "reflect", dtype)
        self._first = first

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        return super().rows(first - self._first, last - self._first, step)

    def all_NCHW(self) -> Tensor:
        return self.window(0, self.height)
