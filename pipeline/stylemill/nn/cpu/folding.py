"""Folds the operations around a convolution (pixel scale, upsampling, shuffle) into its kernel.

Everything here is exact linear algebra on float32 weights. The folded kernels give the results of the originals up to
the rounding of the arithmetic that runs them. ``fold_block`` and ``fold_head`` fold a block of the network; both the
CPU and the GPU form are built from their results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stylemill.nn.architecture import IMAGENET, IMAGENET_MEAN, Architecture, PixelConvention
from stylemill.nn.cpu.channel_stats import FoldedNorm
from stylemill.nn.transformer_net import ConvBlock

PaddingMode = Literal["reflect", "replicate", "zeros"]

MAX_LEVEL = 255
PIXEL_CENTRES = tuple(round(MAX_LEVEL * mean) for mean in IMAGENET_MEAN)
"""Whole numbers subtracted from red, green and blue: the differences are exact in bfloat16."""

OUTPUT_CENTRE = 128
"""The folded head returns pixel - 128: bfloat16 is finest around zero, and the range fits into int8."""

HEAD_COLUMNS = (4, 2, 1)
"""Neighbouring pixels of a row that the folded head computes as channels of one position, best first."""


def fold_pixels_into_stem(
    weight_OIHW: Tensor, bias_O: Tensor | None = None, pixels: PixelConvention = IMAGENET
) -> tuple[Tensor, Tensor]:
    """Fold the pixel scale into the stem, which then takes ``pixel - PIXEL_CENTRES``, red first.

    ``(p x scale - mean) / std`` is ``(p - centre) x scale / std`` plus a constant per channel. Reflection padding
    keeps a constant constant, and a convolution maps it to a constant, which an instance norm behind the stem removes
    as it removes the bias; other norms need it.

    Args:
        weight_OIHW: (O, 3, kH, kW) float32.
        bias_O: (O,) float32; None for zeros.
        pixels: scale and channel order that the network was trained on.
    Returns:
        (O, 3, kH, kW) float32, and the (O,) float32 bias.
    """
    weight_OIHW = weight_OIHW.double()[:, list(pixels.channels)]
    std = torch.tensor(pixels.std, dtype=torch.float64)
    mean = torch.tensor(pixels.mean, dtype=torch.float64)
    centres = torch.tensor(PIXEL_CENTRES, dtype=torch.float64)
    constant_I = (centres / pixels.levels_per_unit - mean) / std
    bias = (weight_OIHW.sum(dim=(2, 3)) * constant_I).sum(dim=1)
    if bias_O is not None:
        bias += bias_O.double()
    return (weight_OIHW / (std * pixels.levels_per_unit).view(1, 3, 1, 1)).float(), bias.float()


def fold_nearest_upsampling(weight_OIHW: Tensor) -> tuple[Tensor, Tensor]:
    """Turn "x2 nearest, reflect 1 px, 3x3 convolution" into two small kernels on the small image.

    An even output row 2i sees the source rows i-1, i, i of the doubled image, an odd one i, i, i+1; taps
    that meet the same source pixel are added up. Both column parities are output channels of one 2x3
    kernel, so the result (H, W, 2O) in memory *is* the row of doubled width (H, 2W, O): no shuffle. The
    reflection by one pixel of the doubled image repeats the source's border pixel, so the small image
    needs replicate padding.

    Args:
        weight_OIHW: (O, I, 3, 3) float32.
    Returns:
        (2O, I, 2, 3) float32 for even output rows (source rows i-1 and i) and the same for odd ones
        (source rows i and i+1). 2/3 of the multiplications of the original.
    """
    wide = weight_OIHW.double()
    left, centre, right = wide.unbind(3)
    zero = torch.zeros_like(left)
    even_columns = torch.stack((left, centre + right, zero), dim=3)
    odd_columns = torch.stack((zero, left + centre, right), dim=3)
    columns = torch.cat((even_columns, odd_columns))
    top, middle, bottom = columns.unbind(2)
    even_rows = torch.stack((top, middle + bottom), dim=2)
    odd_rows = torch.stack((top + middle, bottom), dim=2)
    return even_rows.float(), odd_rows.float()


def fold_transposed_convolution(weight_IOHW: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a transposed 3x3 convolution at stride 2 (padding 1, output padding 1) into two kernels on its input.

    An even output row 2i is the source row i through the middle taps alone; an odd one is row i through the last taps
    and row i+1 through the first. Columns become channels, as in ``fold_nearest_upsampling``. The input needs zero
    padding.

    Args:
        weight_IOHW: (I, O, 3, 3) float32, as torch stores it.
    Returns:
        (2O, I, 1, 3) float32 for even output rows (source row i) and (2O, I, 2, 3) for odd ones (rows i and i+1).
    """
    first, middle, last = weight_IOHW.transpose(0, 1).unbind(3)
    zero = torch.zeros_like(middle)
    even_columns = torch.stack((zero, middle, zero), dim=3)
    odd_columns = torch.stack((zero, last, first), dim=3)
    first, middle, last = torch.cat((even_columns, odd_columns)).unbind(2)
    return middle[:, :, None].contiguous(), torch.stack((last, first), dim=2)


def fold_pixel_shuffle(weight_OIHW: Tensor, bias_O: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Turn a convolution and the pixel shuffle behind it into two kernels whose results need no shuffle.

    Args:
        weight_OIHW: (4 O, I, 3, 3) float32; channel 4o + 2r + c becomes row r and column c of output channel o.
        bias_O: (4 O,) float32, or None.
    Returns:
        (2O, I, 3, 3) and (2O,) float32 for even and for odd output rows, columns as channels as in
        ``fold_nearest_upsampling``.
    """
    rows = torch.arange(len(weight_OIHW)).view(-1, 2, 2).permute(1, 2, 0).flatten(1)
    return [(weight_OIHW[row], None if bias_O is None else bias_O[row]) for row in rows]


def fold_pixels_into_head(
    weight_OIHW: Tensor, bias_O: Tensor, columns: int, pixels: PixelConvention = IMAGENET
) -> tuple[Tensor, Tensor]:
    """Fold deprocessing into the head, which then returns ``pixel - OUTPUT_CENTRE``, red first.

    Deprocessing (x std + mean, x 255) is affine per channel. The head computes several neighbouring pixels of a row at
    once: three output channels leave a matrix unit of 16 columns mostly idle; the kernels of four neighbours, each
    shifted by one more column, fill 12. Run with a horizontal stride of ``columns``, the result
    (H, W / columns, 3 columns) in memory is (H, W, 3).

    Args:
        weight_OIHW: (3, I, kH, kW) float32.
        bias_O: (3,) float32.
        columns: neighbouring pixels that become channels; 1 leaves the kernel's shape alone.
        pixels: scale and channel order that the network was trained on.
    Returns:
        (3 columns, I, kH, kW + columns - 1) and (3 columns,) float32.
    """
    std = torch.tensor(pixels.std, dtype=torch.float64)
    mean = torch.tensor(pixels.mean, dtype=torch.float64)
    order, scale = list(pixels.channels), pixels.output_scale
    weight = weight_OIHW.double()[order] * (scale * std).view(3, 1, 1, 1)
    bias = (bias_O.double()[order] * std + mean) * scale - OUTPUT_CENTRE
    return _side_by_side(weight, bias, columns)


def reorder_head(weight_OIHW: Tensor, bias_O: Tensor, columns: int, pixels: PixelConvention) -> tuple[Tensor, Tensor]:
    """Like ``fold_pixels_into_head``, but keep the head's own scale, for a network that ends in a tanh."""
    order = list(pixels.channels)
    return _side_by_side(weight_OIHW.double()[order], bias_O.double()[order], columns)


def _side_by_side(weight_OIHW: Tensor, bias_O: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    shifted = [F.pad(weight_OIHW, (column, columns - 1 - column)) for column in range(columns)]
    return torch.cat(shifted).float(), bias_O.repeat(columns).float()


@dataclass(frozen=True)
class Kernel:
    """One convolution of a block and the input rows that it reads; tensors float32 on the CPU."""

    weight_OIHW: Tensor
    first_row: int
    """Input row, relative to ``stride * output row``, of the kernel's top."""
    bias_O: Tensor | None = None
    depthwise_I1HW: Tensor | None = None
    """Depthwise kernel that runs first; ``weight_OIHW`` is 1x1 then."""


@dataclass(frozen=True)
class FoldedBlock:
    """Padding, one convolution per kernel, norm.

    A folded x2 upsampling has two kernels, for even and odd output rows; each returns both columns as channels.
    """

    kernels: tuple[Kernel, ...]
    stride: tuple[int, int]
    padding_px: int
    padding_mode: PaddingMode
    norm: FoldedNorm
    interpolation: str | None = None
    """x2 interpolation before the padding, where it cannot be folded (bilinear, bicubic)."""


def fold_block(block: ConvBlock, *, stem_pixels: PixelConvention | None = None) -> FoldedBlock:
    """Copy and fold a block with a norm.

    Args:
        block: any block but the head.
        stem_pixels: the network's pixel convention if the block is the stem, which then takes centred levels.
    Raises:
        ValueError: the block has no norm.
    """
    if block.norm is None:
        raise ValueError("only the head of the network has no norm")
    weight, bias = _copy(block.conv.weight), None if block.conv.bias is None else _copy(block.conv.bias)
    if stem_pixels is not None:
        weight, bias = fold_pixels_into_stem(weight, bias, stem_pixels)
    norm_bias = bias
    stride = (1, 1)
    mode: PaddingMode = "reflect"
    if block.upsampling == "nearest":
        mode = "replicate"
        even, odd = fold_nearest_upsampling(weight)
        kernels: tuple[Kernel, ...] = (Kernel(even, -1), Kernel(odd, 0))
    elif block.upsampling == "transposed":
        mode = "zeros"
        even, odd = fold_transposed_convolution(weight)
        kernels = (Kernel(even, 0), Kernel(odd, 0))
    elif block.upsampling == "shuffle":
        norm_bias = None  # each channel has four biases, so they stay in the convolution
        even_odd = fold_pixel_shuffle(weight, bias)
        kernels = tuple(Kernel(kernel, -block.padding_px, offset) for kernel, offset in even_odd)
    else:
        depthwise = None if block.depthwise is None else _copy(block.depthwise.weight)
        first, second = (block.depthwise or block.conv).stride
        stride = (first, second)
        kernels = (Kernel(weight, -block.padding_px, depthwise_I1HW=depthwise),)
    norm = FoldedNorm.from_module(block.norm, relu=block.relu, bias_C=norm_bias)
    interpolation = None if block.upsampling == "nearest" else block.interpolation
    return FoldedBlock(kernels, stride, block.padding_px, mode, norm, interpolation)


@dataclass(frozen=True)
class OutputTanh:
    """The end of a network with a tanh: ``gain x tanh(x) + offset`` is the centred level."""

    gain_C: Tensor
    offset_C: Tensor

    def apply(self, raw_HWC: Tensor) -> Tensor:
        """Return (H, W, 3) float32 on the scale of the linear head."""
        return torch.tanh(raw_HWC.float()).mul_(self.gain_C).add_(self.offset_C)


def output_tanh(pixels: PixelConvention) -> OutputTanh:
    """Return what follows the folded head of a network that ends in a tanh."""
    gain_C = torch.tensor(pixels.std) * pixels.output_scale
    return OutputTanh(gain_C, torch.tensor(pixels.mean) * pixels.output_scale - OUTPUT_CENTRE)


def fold_head(head: ConvBlock, architecture: Architecture, columns: int) -> tuple[Tensor, Tensor]:
    """Copy and fold the last convolution of a network.

    Args:
        head: the block.
        architecture: of the network.
        columns: neighbouring pixels that become channels.
    Returns:
        (3 columns, I, kH, kW + columns - 1) and (3 columns,) float32.
    """
    if head.conv.bias is None:
        raise ValueError("the head of the network has no bias")
    fold = fold_pixels_into_head if architecture.output == "linear" else reorder_head
    return fold(_copy(head.conv.weight), _copy(head.conv.bias), columns, architecture.pixels)


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().float().cpu()
