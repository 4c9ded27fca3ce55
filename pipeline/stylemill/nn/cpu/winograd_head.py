"""The last convolution of the network, 9x9 to three colours, in float32 with a third of the multiplications.

A kernel of 9 x 9 is nine kernels of 3 x 3 that lie three pixels apart. Winograd's algorithm F(3x3, 3x3) computes tiles
of 3 x 3 results from 5 x 5 inputs, by products at 25 points (of 0, 1, -1, 2 and infinity, in both directions). Because
the tiles are as far apart as the kernels, the nine kernels of a tile need the inputs of nine neighbouring tiles, whose
values at the points are computed once. So there is one matrix product for each point and row of tiles, with the 27
kernels (nine for each colour); the nine products of each tile and colour are added up at the points, and interpolated.

Only compiled: in torch the transforms would take longer than the products save. ``winograd.py`` names the sources.
"""

from __future__ import annotations

from ctypes import CDLL

import torch
from torch import Tensor

from stylemill.nn.cpu.compiled import rows_pointer
from stylemill.nn.cpu.sharing import shared
from stylemill.nn.cpu.thread_team import SHARED_BUFFERS
from stylemill.nn.cpu.winograd import window_of
from stylemill.nn.transformer_net import IMAGE_CHANNELS

TILE_PX = 3
_POINTS = 5
_KERNEL_TILES = 3
_KERNELS = _KERNEL_TILES**2 * IMAGE_CHANNELS
_MAX_TILES = 700
"""Tiles that are computed at once; the same on every machine, because the last bits depend on it."""
_MIN_TILE_ROWS, _MAX_TILE_ROWS = 2, 4

_EVALUATE_KERNEL = (
    (1 / 2, 0.0, 0.0),
    (-1 / 2, -1 / 2, -1 / 2),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 6, 1 / 3, 2 / 3),
    (0.0, 0.0, 1.0),
)


def winograd_head(weight_OIHW: Tensor, bias_O: Tensor, library: CDLL) -> WinogradHead:
    """Return a ``WinogradHead`` of these arguments, shared by all that ask for the same weights."""
    return shared((weight_OIHW, bias_O), WinogradHead, lambda: WinogradHead(weight_OIHW, bias_O, library))


class WinogradHead:
    """An unpadded 9x9 convolution of float32 channels-last maps to three colours, with the interface of ``DirectConv``.

    Args:
        weight_OIHW: (3, I, 9, 9) float32.
        bias_O: (3,) float32.
        library: the compiled transforms.
    """

    stride = 1
    scale = 1
    first_row = -4
    reach = 9
    out_channels = IMAGE_CHANNELS

    def __init__(self, weight_OIHW: Tensor, bias_O: Tensor, library: CDLL) -> None:
        self.in_channels = weight_OIHW.shape[1]
        self.bias_O, self.library = bias_O.detach().float().contiguous(), library
        points = torch.tensor(_EVALUATE_KERNEL, dtype=torch.float64)
        tiles_OIyuxv = weight_OIHW.detach().double().unflatten(3, (_KERNEL_TILES, -1)).unflatten(2, (_KERNEL_TILES, -1))
        kernels = torch.einsum("pu,qv,oiyuxv->pqyxoi", points, points, tiles_OIyuxv)
        self.kernel_PKI = kernels.reshape(_POINTS**2, _KERNELS, self.in_channels).float()

    def describe(self) -> list[str]:
        """Return channels, shape and algorithm."""
        return [f"{self.in_channels} to {IMAGE_CHANNELS}, 9x9/1x1, Winograd compiled"]

    def rows_per_group(self, width: int) -> int:
        """Return the number of rows of a map of ``width`` columns that are computed together."""
        return TILE_PX * self._tiles(width)[0]

    def _tiles(self, width: int) -> tuple[int, int]:
        """Return the rows and columns of tiles, those of the border included, that are computed at once."""
        columns, border = -(-width // TILE_PX), _KERNEL_TILES - 1
        # Equal ranges: all products have one shape.
        columns = border + -(-columns // -(-columns // (_MAX_TILES // _MIN_TILE_ROWS - border)))
        return min(_MAX_TILE_ROWS, _MAX_TILES // columns), columns

    def __call__(self, window_NCHW: Tensor) -> list[Tensor]:
        """Convolve without padding.

        Args:
            window_NCHW: (1, I, n + 8, W + 8) channels-last, from a multiple of ``rows_per_group`` of the map on.
        Returns:
            (1, 3, n, W) channels-last.
        """
        rows_HWC = window_NCHW[0].permute(1, 2, 0)
        if rows_HWC.shape[2] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got {rows_HWC.shape[2]}")
        height, width = rows_HWC.shape[0] - self.reach + 1, rows_HWC.shape[1] - self.reach + 1
        out_HWC = torch.empty(height, width, IMAGE_CHANNELS)
        unit = _HeadTiles(self, *self._tiles(width))
        for left in range(0, width, unit.width):
            unit.convolve(rows_HWC[:, left : left + unit.width + self.reach - 1], out_HWC[:, left : left + unit.width])
        SHARED_BUFFERS.put_back(unit.buffer)
        return [out_HWC.permute(2, 0, 1)[None]]


class _HeadTiles:
    """Memory for the tiles that are computed at once, and for the products of those before, of which two rows are used.

    Args:
        conv: the convolution.
        tile_rows: rows of tiles.
        tiles: tiles in a row, those of the border included.
    """

    def __init__(self, conv: WinogradHead, tile_rows: int, tiles: int) -> None:
        self._conv, self._tile_rows, self._tiles = conv, tile_rows, tiles
        self.width = (tiles - _KERNEL_TILES + 1) * TILE_PX
        """Columns of the result."""
        points, num_tiles = _POINTS**2, tile_rows * tiles
        sizes = points * num_tiles * conv.in_channels, *[points * _KERNELS * num_tiles] * 2
        self.buffer = SHARED_BUFFERS.take(4 * sum(sizes))
        inputs, *products = self.buffer[: 4 * sum(sizes)].view(torch.float32).split(sizes)
        self._inputs_PTI = inputs.view(points, num_tiles, conv.in_channels)
        self._products_PKT = [half.view(points, _KERNELS, num_tiles) for half in products]

    def convolve(self, rows_HWC: Tensor, out_HWC: Tensor) -> None:
        """Convolve some columns of a map, from top to bottom.

        Args:
            rows_HWC: (n + 8, W + 8, I).
            out_HWC: (n, W, 3) with W of at most ``width``, overwritten.
        """
        height, border = out_HWC.shape[0], _KERNEL_TILES - 1
        for first in range(0, -(-height // TILE_PX) + border, self._tile_rows):
            self._multiply(rows_HWC, first)
            for tile_row in range(max(0, first - border), first + self._tile_rows - border):
                part_HWC = out_HWC[tile_row * TILE_PX : (tile_row + 1) * TILE_PX]
                if len(part_HWC):
                    self._combine(tile_row, part_HWC)

    def _multiply(self, rows_HWC: Tensor, first: int) -> None:
        """Compute the products of the rows of tiles from ``first`` on."""
        size = self._tile_rows * TILE_PX + 2, self._tiles * TILE_PX + 2
        # At the end of the map it has zeros; what is computed from them is not used.
        window_HWC = window_of(rows_HWC, first * TILE_PX, 0, size)
        self._conv.library.stylemill_head_evaluate(
            rows_pointer(window_HWC),
            window_HWC.stride(0),
            self._tile_rows,
            self._tiles,
            self._conv.in_channels,
            self._inputs_PTI.data_ptr(),
            self._inputs_PTI.stride(0),
        )
        torch.bmm(self._conv.kernel_PKI, self._inputs_PTI.transpose(1, 2), out=self._products_of(first))

    def _products_of(self, tile_row: int) -> Tensor:
        return self._products_PKT[tile_row // self._tile_rows % 2]

    def _combine(self, tile_row: int, part_HWC: Tensor) -> None:
        """Write the results of a row of tiles."""
        rows = range(tile_row, tile_row + _KERNEL_TILES)
        starts = [self._products_of(row)[0, 0, row % self._tile_rows * self._tiles :] for row in rows]
        self._conv.library.stylemill_head_combine(
            *(start.data_ptr() for start in starts),
            self._tile_rows * self._tiles,
            self._tiles,
            self._conv.bias_O.data_ptr(),
            rows_pointer(part_HWC),
            part_HWC.stride(0),
            part_HWC.shape[0],
            part_HWC.shape[1],
        )
