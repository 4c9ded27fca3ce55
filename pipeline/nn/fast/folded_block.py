"""A block of the network, rewritten so that as little as possible surrounds its convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pipeline.nn.fast.folding import (
    fold_nearest_upsampling,
    fold_pixel_shuffle,
    fold_pixels_into_stem,
    fold_transposed_convolution,
)
from pipeline.nn.fast.norm import Norm
from pipeline.nn.pixel_convention import PixelConvention
from pipeline.nn.transformer_net import ConvBlock

PaddingMode = Literal["reflect", "replicate", "zeros"]


@dataclass(frozen=True)
class Kernel:
    """One convolution of a block and the input rows that it reads; tensors float32 on the CPU."""

    weight_OIHW: Tensor
    first_row: int
    """Input row, relative to ``stride * output row``, of the kernel's top."""
    bias_O: Tensor | None = None
    depthwise_I1HW: Tensor | None = None
    """Kernel of a convolution of each channel by itself, before; ``weight_OIHW`` is 1x1 then."""


@dataclass(frozen=True)
class FoldedBlock:
    """Padding, one convolution per kernel, norm.

    A folded x2 upsampling has two kernels, for even and odd output rows; each gives both columns as channels.
    """

    kernels: tuple[Kernel, ...]
    stride: tuple[int, int]
    padding_px: int
    padding_mode: PaddingMode
    norm: Norm
    interpolation: str | None = None
    """x2 interpolation before the padding that could not be folded (bilinear, bicubic)."""


def fold_block(block: ConvBlock, *, stem_pixels: PixelConvention | None = None) -> FoldedBlock:
    """Copy and fold a block with a norm.

    Args:
        block: any but the head.
        stem_pixels: if the block is the stem, what the network's pixels are; it then takes centred levels.
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
        norm_bias = None  # four biases to a channel: none of them is the norm's business
        even_odd = fold_pixel_shuffle(weight, bias)
        kernels = tuple(Kernel(kernel, -block.padding_px, offset) for kernel, offset in even_odd)
    else:
        depthwise = None if block.depthwise is None else _copy(block.depthwise.weight)
        first, second = (block.depthwise or block.conv).stride
        stride = (first, second)
        kernels = (Kernel(weight, -block.padding_px, depthwise_I1HW=depthwise),)
    norm = Norm.of(block.norm, relu=block.relu, bias_C=norm_bias)
    interpolation = None if block.upsampling == "nearest" else block.interpolation
    return FoldedBlock(kernels, stride, block.padding_px, mode, norm, interpolation)


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().float().cpu()
