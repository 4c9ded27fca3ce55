"""A feature map in memory together with its padded border."""

from __future__ import annotations

import torch
from torch import Tensor

from stylemill.nn.cpu.folding import PaddingMode

_AS_INTEGER = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


class Frame:
    """(H + 2p, W + 2p, C) memory: the map inside, its reflected or repeated border around.

    Rows are written in any order and number; ``close_rows`` then fills the border beside, and at the
    top and bottom edge above and below, them.

    Args:
        buffer: at least ``num_bytes`` bytes of uint8, any content; shown again as ``buffer``.
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
        """Return how many bytes a frame of these sizes takes."""
        return (height + 2 * padding_px) * (width + 2 * padding_px) * channels * dtype.itemsize

    def rows(self, first: int, last: int, step: int = 1) -> Tensor:
        """Return the (n, W, C) view of the rows ``range(first, last, step)`` without the border."""
        return self._inside_HWC[first:last:step]

    def window(self, first: int, num_rows: int) -> Tensor:
        """Return the (1, C, num_rows, W + 2p) channels-last view from row ``first``, -p at least."""
        start = first + self.padding_px
        return self._all_HWC[start : start + num_rows].permute(2, 0, 1)[None]

    def close_rows(self, first: int, last: int) -> None:
        """Fill the border of the rows ``range(first, last)``, of the edges too when they are among them.

        Next to the top edge the rows up to p must have been written before, next to the bottom edge the
        last p + 1.
        """
        pad, width, height = self.padding_px, self.width, self.height
        band_HWC = self._all_HWC[first + pad : last + pad]
        close_sides(band_HWC, pad, width, self.mode)
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


def close_sides(band_HWC: Tensor, padding_px: int, width: int, mode: PaddingMode) -> None:
    """Fill the border to the left and right of some rows.

    Args:
        band_HWC: (n, W + 2p, C), the map inside.
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

    Floats below zero are, read as integers, below zero; so an integer maximum does it, bit for bit, and
    for bfloat16 three times as fast as the float operator, which widens to float32 and back.
    """
    integer = _AS_INTEGER[values.dtype]
    torch.clamp_min(values.view(integer), 0, out=out.view(integer))
