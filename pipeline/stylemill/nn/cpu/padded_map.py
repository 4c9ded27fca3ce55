"""A feature map in memory together with its padded border, the input of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from stylemill.nn.cpu.folding import PaddingMode


class PaddedMap:
    """A feature map of (H, W, C) inside a buffer of (H + 2p, W + 2p, C) that has room for its border.

    Rows can be written in any order and number. ``fill_border`` then fills the border at their left and right,
    and above the first and below the last row of the map.

    Args:
        buffer: at least ``num_bytes`` bytes of uint8, any content; kept in the attribute ``buffer``.
        height: H, in feature pixels.
        width: W.
        channels: C.
        padding_px: p, smaller than H and W.
        mode: how the border continues the map.
        dtype: of the features.
    """

    def __init__(
        self,
        buffer: Tensor,
        height: int,
        width: int,
        channels: int,
        padding_px: int,
        mode: PaddingMode,
        dtype: torch.dtype,
    ) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.padding_px, self.mode = padding_px, mode
        self.buffer = buffer
        used = buffer[: self.num_bytes(height, width, channels, padding_px, dtype)].view(dtype)
        pad = padding_px
        self._all_HWC = used.view(height + 2 * pad, width + 2 * pad, channels)
        self._inside_HWC = self._all_HWC[pad : pad + height, pad : pad + width]

    @staticmethod
    def num_bytes(height: int, width: int, channels: int, padding_px: int, dtype: torch.dtype) -> int:
        """Return the size of the buffer for these sizes."""
        return (height + 2 * padding_px) * (width + 2 * padding_px) * channels * dtype.itemsize

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        """Return the (n, W, C) view of the rows ``range(first, last, step)`` without the border."""
        return self._inside_HWC[first:last:step]

    def window(self, first: int, num_rows: int) -> Tensor:
        """Return the (1, C, num_rows, W + 2p) channels-last view from row ``first`` on, which is at least -p."""
        start = first + self.padding_px
        return self._all_HWC[start : start + num_rows].permute(2, 0, 1)[None]

    def fill_border(self, first: int, last: int) -> None:
        """Fill the border next to the rows ``range(first, last)``.

        If these include the first row of the map, the rows up to p must have been written before; if they include
        the last row, the last p + 1.
        """
        pad, width, height = self.padding_px, self.width, self.height
        band_HWC = self._all_HWC[first + pad : last + pad]
        fill_sides(band_HWC, pad, width, self.mode)
        for distance in range(1, pad + 1):
            inner = distance if self.mode == "reflect" else 0
            for is_at_edge, outer, edge, sign in (
                (first == 0, pad - distance, pad, 1),
                (last == height, pad + height - 1 + distance, pad + height - 1, -1),
            ):
                if is_at_edge and self.mode == "zeros":
                    self._all_HWC[outer] = 0
                elif is_at_edge:
                    self._all_HWC[outer] = self._all_HWC[edge + sign * inner]


def fill_sides(band_HWC: Tensor, padding_px: int, width: int, mode: PaddingMode) -> None:
    """Fill the border to the left and right of some rows.

    Args:
        band_HWC: (n, W + 2p, C), with the map between the borders.
        padding_px: p.
        width: W.
        mode: how the border continues the map.
    """
    pad = padding_px
    if mode == "zeros":
        band_HWC[:, :pad] = 0
        band_HWC[:, pad + width :] = 0
        return
    for distance in range(1, pad + 1):
        inner = distance if mode == "reflect" else 0
        band_HWC[:, pad - distance] = band_HWC[:, pad + inner]
        band_HWC[:, pad + width - 1 + distance] = band_HWC[:, pad + width - 1 - inner]


def relu_into(out: Tensor, values: Tensor) -> None:
    """Write ``max(values, 0)`` into ``out``, both bfloat16 or both float32, of one shape.

    The bits of a negative float are a negative integer, so for bfloat16 an integer maximum gives the same result, three
    times as fast as the float operator, which converts to float32 and back; only a negative NaN becomes 0.
    """
    if values.dtype == torch.bfloat16:
        torch.clamp_min(values.view(torch.int16), 0, out=out.view(torch.int16))
    else:
        torch.clamp_min(values, 0, out=out)
