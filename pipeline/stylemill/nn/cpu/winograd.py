"""3x3 convolutions in float32 with a quarter of the multiplications (a folded upsampling: three eighths).

Winograd's algorithm F(4x4, 3x3) computes tiles of 4 x 4 results from 6 x 6 inputs. Both the inputs and the kernel are
transformed to values at 36 points (polynomial evaluation at 0, 1, -1, 2, -2 and infinity, in both directions), where
the convolution is a product of numbers, summed over the channels: 36 matrix products for all tiles together. A last
transform interpolates the results.

The transforms are compiled from ``kernels.c`` if a C compiler was there when the package was installed. Otherwise
torch computes them: slower, and with other last bits.

Sources: S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin and S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL

import torch
import torch.nn.functional as F
from torch import Tensor

from stylemill.nn.cpu.compiled import LIBRARY, rows_pointer
from stylemill.nn.cpu.folding import FoldedBlock, Kernel
from stylemill.nn.cpu.sharing import shared
from stylemill.nn.cpu.thread_team import SHARED_BUFFERS

MIN_IN_CHANNELS = 32
"""With fewer, the transforms cost more than the products save."""

TILE_PX = 4
_POINTS = 6
_UNIT_BYTES = 2_400_000
"""Transformed inputs and results of the tiles that are computed at once: they should stay in the cache.

It is the same on every machine, because the shapes of the matrix products, and with them the last bits of the results,
depend on it.
"""
_MAX_TILE_ROWS = 4
_MIN_TILES = 32
"""With fewer at once, kernels of many channels would be read from memory too often."""

# The transforms, from the sources named above. ``_evaluate``, ``_interpolate`` and ``kernels.c`` compute the same
# products by hand; the tests compare all of them with torch's convolution.
_EVALUATE_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_EVALUATE_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_INTERPOLATE = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


def can_be_winograd(block: FoldedBlock) -> bool:
    """Return whether a block is, or can be folded into, a dense 3x3 convolution at stride 1 of enough channels."""
    return block.stride == (1, 1) and block.padding_px == 1 and all(_fits(kernel) for kernel in block.kernels)


def _fits(kernel: Kernel) -> bool:
    _, in_channels, height, width = kernel.weight_OIHW.shape
    dense = kernel.depthwise_I1HW is None and kernel.bias_O is None and in_channels >= MIN_IN_CHANNELS
    return dense and width == 3 and kernel.first_row >= -1 and kernel.first_row + height <= 2


def joined_kernel(kernels: Sequence[Kernel]) -> Tensor:
    """Join the kernels of a block along the output channels, each filled up with zeros to 3 rows."""
    padded = []
    for kernel in kernels:
        above = 1 + kernel.first_row
        padded.append(F.pad(kernel.weight_OIHW, (0, 0, above, 3 - above - kernel.weight_OIHW.shape[2])))
    return torch.cat(padded)


def winograd_conv(weight_OIHW: Tensor, *, scale: int = 1) -> WinogradConv:
    """Return a ``WinogradConv`` of these arguments, shared by all that ask for the same weights."""
    return shared((weight_OIHW,), (WinogradConv, scale), lambda: WinogradConv(weight_OIHW, scale=scale))


class WinogradConv:
    """An unpadded 3x3 convolution of float32 channels-last maps at stride 1, with the interface of ``DirectConv``.

    The tiles lie at fixed places of the map, and all matrix products of a map have one shape, which depends only on
    its width. So the bits of the results do not depend on how a map is divided among calls, if each begins at a
    multiple of ``rows_per_group`` and ends at one or with the map.

    Args:
        weight_OIHW: (O, I, 3, 3) float32.
        scale: 1, or 2 for a folded x2 upsampling, whose channels are those of even rows and even columns, even rows
            and odd columns, odd rows and even columns, and of odd ones.
    """

    stride = 1
    first_row = -1
    reach = 3

    def __init__(self, weight_OIHW: Tensor, *, scale: int = 1) -> None:
        self._num_results, self.in_channels = weight_OIHW.shape[:2]
        self.scale = scale
        self.out_channels = self._num_results // scale**2
        points = torch.tensor(_EVALUATE_KERNEL, dtype=torch.float64)
        kernel_pqIO = torch.einsum("pu,qv,oiuv->pqio", points, points, weight_OIHW.detach().double())
        self._kernel_PIO = kernel_pqIO.reshape(_POINTS**2, self.in_channels, self._num_results).float()

    def describe(self) -> list[str]:
        """Return channels, shape and algorithm."""
        transforms = "in torch" if LIBRARY is None else "compiled"
        return [f"{self.in_channels} to {self._num_results}, 3x3/1x1, Winograd {transforms}"]

    def rows_per_group(self, width: int) -> int:
        """Return the number of rows of a map of ``width`` columns that are computed together."""
        return TILE_PX * self._tiles(width)[0]

    def _tiles(self, width: int) -> tuple[int, int]:
        """Return the rows and columns of tiles that are computed at once."""
        columns = -(-width // TILE_PX)
        most = max(_MIN_TILES, _UNIT_BYTES // (_POINTS**2 * (self.in_channels + self._num_results) * 4))
        if columns <= most:
            return min(_MAX_TILE_ROWS, most // columns), columns
        # Equal ranges: all products have one shape.
        return 1, -(-columns // -(-columns // most))

    def __call__(self, window_NCHW: Tensor) -> list[Tensor]:
        """Convolve without padding.

        Args:
            window_NCHW: (1, I, n + 2, W + 2) channels-last, from a multiple of ``rows_per_group`` of the map on.
        Returns:
            (1, C, n, scale x W) channels-last for even and odd output rows, or for all if ``scale`` is 1.
        """
        rows_HWC = window_NCHW[0].permute(1, 2, 0)
        height, width = rows_HWC.shape[0] - 2, rows_HWC.shape[1] - 2
        phases_SHWC = torch.empty(self.scale, height, width, self._num_results // self.scale)
        self.write(rows_HWC, phases_SHWC)
        wide_SHWC = phases_SHWC.view(self.scale, height, self.scale * width, self.out_channels)
        return [phase_HWC.permute(2, 0, 1)[None] for phase_HWC in wide_SHWC]

    def write(self, rows_HWC: Tensor, out_SHWC: Tensor, *, rows: tuple[int, int] | None = None) -> None:
        """Convolve into memory of the caller.

        Args:
            rows_HWC: (n + 2, W + 2, I) with its border; or, with ``rows``, (H, W, I), around which are zeros.
            out_SHWC: (scale, n, W, O / scale), overwritten.
            rows: the n rows of the map to compute, as ``range``; None for all of a window with its border.
        """
        if rows_HWC.shape[2] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got {rows_HWC.shape[2]}")
        first, last = rows or (0, out_SHWC.shape[1])
        border = 0 if rows is None else 1
        width = out_SHWC.shape[2]
        sizes = (*self._tiles(width), self.in_channels, self._num_results)
        unit = _TorchTiles(*sizes) if LIBRARY is None else _CompiledTiles(LIBRARY, *sizes)
        for top in range(first, last, unit.height):
            for left in range(0, width, unit.width):
                unit.evaluate(rows_HWC, top - border, left - border)
                torch.bmm(unit.inputs_PTC, self._kernel_PIO, out=unit.results_PTC)
                bottom, right = min(top + unit.height, last), min(left + unit.width, width)
                unit.interpolate(out_SHWC[:, top - first : bottom - first, left:right])
        SHARED_BUFFERS.put_back(unit.buffer)


def window_of(rows_HWC: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """Return the window of this height and width from a pixel of a map on; what lies outside of the map is zero."""
    height, width, _ = rows_HWC.shape
    bottom, right = top + size[0], left + size[1]
    inside_HWC = rows_HWC[max(0, top) : bottom, max(0, left) : right]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return inside_HWC
    outside = (max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height))
    return F.pad(inside_HWC, (0, 0, *outside))


class _Tiles:
    """Tiles that are computed at once: their values at the 36 points, before and after the matrix products.

    Axes: P points, of which p of rows and q of columns; R rows of tiles, t tiles of a row, T tiles in all and one.

    Args:
        tile_rows: R.
        tile_columns: t.
        in_channels: of the inputs.
        out_channels: of the results.
        others: numbers of floats that a form needs besides.
    """

    def __init__(self, tile_rows: int, tile_columns: int, in_channels: int, out_channels: int, *others: int) -> None:
        self.tile_rows, self.tile_columns, self.in_channels = tile_rows, tile_columns, in_channels
        self.height, self.width = TILE_PX * tile_rows, TILE_PX * tile_columns
        points = _POINTS**2
        # With one tile more, whose results are not used, the distance between the values of neighbouring points is no
        # power of two: otherwise the 36 values of a tile would compete for few lines of the cache.
        tiles = tile_rows * tile_columns + 1
        self.inputs_stride, self.results_stride = tiles * in_channels, tiles * out_channels
        sizes = (points * self.inputs_stride, points * self.results_stride, *others)
        self.buffer = SHARED_BUFFERS.take(4 * sum(sizes))
        inputs, results, *self.others = self.buffer[: 4 * sum(sizes)].view(torch.float32).split(sizes)
        self.inputs_PTC = inputs.view(points, tiles, in_channels)
        self.results_PTC = results.view(points, tiles, out_channels)
        self.inputs_PTC[:, -1] = 0

    def window(self, rows_HWC: Tensor, top: int, left: int) -> Tensor:
        """Return the (height + 2, width + 2, C) window of a map from there on; what lies outside of the map is zero."""
        return window_of(rows_HWC, top, left, (self.height + 2, self.width + 2))


class _CompiledTiles(_Tiles):
    """With the transforms of ``kernels.c``."""

    def __init__(self, library: CDLL, tile_rows: int, tile_columns: int, in_channels: int, out_channels: int) -> None:
        super().__init__(tile_rows, tile_columns, in_channels, out_channels)
        self._library = library

    def evaluate(self, rows_HWC: Tensor, top: int, left: int) -> None:
        """Fill ``inputs_PTC`` from the window of a map that begins at this pixel, which may lie outside of the map."""
        window_HWC = self.window(rows_HWC, top, left)
        self._library.stylemill_winograd_evaluate(
            rows_pointer(window_HWC),
            window_HWC.stride(0),
            self.tile_rows,
            self.tile_columns,
            self.in_channels,
            self.inputs_PTC.data_ptr(),
            self.inputs_stride,
        )

    def interpolate(self, out_SHWC: Tensor) -> None:
        """Write the results into the map, or into the part of it that the unit covers."""
        parts, height, width, channels = out_SHWC.shape
        self._library.stylemill_winograd_interpolate(
            self.results_PTC.data_ptr(),
            self.results_stride,
            self.tile_columns,
            channels,
            parts,
            rows_pointer(out_SHWC[0]),
            out_SHWC.stride(0),
            out_SHWC.stride(1),
            height,
            width,
        )


class _TorchTiles(_Tiles):
    """With transforms in torch: matrix products along rows, whose tiles lie one after the other, sums along columns."""

    def __init__(self, tile_rows: int, tile_columns: int, in_channels: int, out_channels: int) -> None:
        width, tiles = TILE_PX * tile_columns + 2, tile_rows * tile_columns
        num_columns = TILE_PX * _POINTS * (tiles + 1) * out_channels
        others = _POINTS * tile_rows * width * in_channels, num_columns
        super().__init__(tile_rows, tile_columns, in_channels, out_channels, *others)
        rows, columns = self.others
        self._rows_pRWC = rows.view(_POINTS, tile_rows, width, in_channels)
        self._columns_yF = columns.view(TILE_PX, -1)
        columns_yqTC = columns.view(TILE_PX, _POINTS, tiles + 1, out_channels)[:, :, :tiles]
        self._columns_yqRtC = columns_yqTC.unflatten(2, (tile_rows, tile_columns))
        last = TILE_PX * (tile_columns - 1) + 1
        self._taps = [self._rows_pRWC[:, :, tap : tap + last : TILE_PX] for tap in range(_POINTS)]
        inputs_PRtC = self.inputs_PTC[:, :tiles].unflatten(1, (tile_rows, tile_columns))
        self._inputs = inputs_PRtC.unflatten(0, (_POINTS, _POINTS)).unbind(1)
        self._evaluate_rows, self._interpolate_rows = torch.tensor(_EVALUATE_INPUT), torch.tensor(_INTERPOLATE)

    def evaluate(self, rows_HWC: Tensor, top: int, left: int) -> None:
        """Fill ``inputs_PTC`` from the window of a map that begins at this pixel, which may lie outside of the map."""
        window_HWC = self.window(rows_HWC, top, left)
        for row in range(self.tile_rows):
            taps = window_HWC[TILE_PX * row : TILE_PX * row + _POINTS].flatten(1)
            torch.mm(self._evaluate_rows, taps, out=self._rows_pRWC[:, row].flatten(1))
        _evaluate(self._taps, self._inputs)

    def interpolate(self, out_SHWC: Tensor) -> None:
        """Write the results into the map, or into the part of it that the unit covers."""
        torch.mm(self._interpolate_rows, self.results_PTC.view(_POINTS, -1), out=self._columns_yF)
        parts, height, width, channels = out_SHWC.shape
        whole = (height, width) == (self.height, self.width)
        tiles_SHWC = out_SHWC if whole else torch.empty(parts, self.height, self.width, channels)
        tiles = tiles_SHWC.unflatten(2, (-1, TILE_PX)).unflatten(1, (-1, TILE_PX))
        columns = self._columns_yqRtC.unflatten(-1, (parts, channels))
        _interpolate(columns.unbind(1), tiles.permute(2, 1, 3, 0, 5, 4).unbind(-1))
        if not whole:
            out_SHWC.copy_(tiles_SHWC[:, :height, :width])


def _evaluate(taps: Sequence[Tensor], points: Sequence[Tensor]) -> None:
    """Write the products of ``_EVALUATE_INPUT`` and six maps: matrix products would need another order of memory."""
    d0, d1, d2, d3, d4, d5 = taps
    p0, p1, p2, p3, p4, p5 = points
    torch.sub(d4, d2, alpha=4, out=p0)
    torch.sub(d3, d1, alpha=4, out=p5)
    torch.add(p0, p5, out=p1)
    torch.sub(p0, p5, out=p2)
    torch.sub(d4, d2, out=p0)
    torch.sub(d3, d1, out=p5)
    torch.add(p0, p5, alpha=2, out=p3)
    torch.sub(p0, p5, alpha=2, out=p4)
    p0.add_(d0, alpha=4).sub_(d2, alpha=4)
    torch.sub(d5, p5, alpha=4, out=p5).sub_(d3)


def _interpolate(points: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Write the products of ``_INTERPOLATE`` and six maps; ``points`` are overwritten."""
    m0, m1, m2, m3, m4, m5 = points
    y0, y1, y2, y3 = results
    torch.add(m1, m2, out=y0)
    m1.sub_(m2)
    torch.add(m3, m4, out=m2)
    m3.sub_(m4)
    torch.add(y0, m2, alpha=4, out=y2)
    y0.add_(m2).add_(m0)
    torch.add(m1, m3, alpha=2, out=y1)
    torch.add(m5.add_(m1), m3, alpha=8, out=y3)
