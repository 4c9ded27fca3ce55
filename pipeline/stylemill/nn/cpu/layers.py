"""The layers of a trained network, folded and packed once for the CPU.

``describe_folded`` and ``describe_unfolded`` put in words which operations of an architecture cost nothing in this
form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from stylemill.nn.architecture import Architecture, Interpolation
from stylemill.nn.cpu.channel_stats import FoldedNorm
from stylemill.nn.cpu.compiled import LIBRARY, VERSION
from stylemill.nn.cpu.direct_conv import DirectConv, Phase
from stylemill.nn.cpu.folding import (
    HEAD_COLUMNS,
    FoldedBlock,
    Kernel,
    OutputTanh,
    PaddingMode,
    fold_block,
    fold_head,
    output_tanh,
)
from stylemill.nn.cpu.packed_conv import PackedConv, SeparableConv, packed_conv
from stylemill.nn.cpu.winograd import WinogradConv, can_be_winograd, joined_kernel, winograd_conv
from stylemill.nn.cpu.winograd_head import WinogradHead, winograd_head
from stylemill.nn.transformer_net import NUM_RESIDUAL_BLOCKS, ResidualBlock, TransformerNet

_UPSAMPLING = {
    "nearest": "nearest upsampling is folded into two kernels on the small map",
    "transposed": "the transposed convolutions are folded into two kernels on the small map",
    "shuffle": "the pixel shuffles are folded into the order of the kernels",
}
_STATISTICS = {
    "instance": "instance norm takes the statistics of each channel over the whole image",
    "layer": "layer norm takes statistics over the whole image, all channels together",
    "group": "group norm takes statistics over the whole image, groups of channels together",
}


def describe_folded(architecture: Architecture) -> list[str]:
    """Return a line for each operation that the fast and tiled forms fold into a convolution at no cost."""
    parts = ["the pixels' scale and order are folded into the first convolution"]
    if architecture.output == "linear":
        parts[0] = "the pixels' scale and order are folded into the first and last convolution"
    if architecture.upsampling in _UPSAMPLING:
        parts.append(_UPSAMPLING[architecture.upsampling])
    if architecture.norm == "batch":
        parts.append("batch norm is a scale and shift without statistics, which saves large images one pass per norm")
    return parts


def describe_unfolded(architecture: Architecture) -> list[str]:
    """Return a line for each operation that they run as the plain network does."""
    parts = []
    if architecture.upsampling not in _UPSAMPLING:
        parts.append(f"{architecture.upsampling} upsampling runs before its convolutions, at full size")
    if architecture.norm != "batch":
        parts.append(_STATISTICS[architecture.norm])
    if architecture.residual == "separable":
        parts.append("each separable convolution is two, with a map between them")
    if architecture.output == "tanh":
        parts.append("the tanh runs between the last convolution and its scale")
    return parts


@dataclass(frozen=True)
class Layer:
    """A padded convolution and the norm behind it."""

    conv: DirectConv | WinogradConv | WinogradHead
    padding_px: int
    padding_mode: PaddingMode
    norm: FoldedNorm | None
    interpolation: str | None = None
    """x2 interpolation before the padding, where it cannot be folded (bilinear, bicubic)."""
    tanh: OutputTanh | None = None
    """Follows the head of a network that ends in a tanh."""

    def input_rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the first input row, which may lie in the padding, and the number of those that phase rows read."""
        conv = self.conv
        return first * conv.stride + conv.first_row, (last - first - 1) * conv.stride + conv.reach

    def whole_groups(self, num_rows: int, width: int) -> int:
        """Round a number of phase rows to whole groups of a map of ``width`` output columns, at least one."""
        rows = self.conv.rows_per_group(width // self.conv.scale)
        return max(rows, num_rows // rows * rows)


@dataclass(frozen=True)
class Layers:
    """All layers of one network in one precision."""

    dtype: torch.dtype
    stem: Layer
    downs: tuple[Layer, Layer]
    residuals: tuple[tuple[Layer, Layer], ...]
    ups: tuple[Layer, Layer]
    head: Layer

    def kernels(self) -> list[str]:
        """Return how this machine computes each convolution, in the order of the layers, and the norms."""
        residuals = [layer for pair in self.residuals for layer in pair]
        layers = (self.stem, *self.downs, *residuals, *self.ups, self.head)
        norms = "norms in torch" if LIBRARY is None else f"norms compiled, version {VERSION}"
        return [*(line for layer in layers for line in layer.conv.describe()), norms]


def stays_flat(architecture: Architecture) -> bool:
    """Return whether pictures of one colour become such: transposed and sub-pixel convolutions paint patterns."""
    return architecture.upsampling in get_args(Interpolation)


def prepare_layers(net: TransformerNet, dtype: torch.dtype, *, winograd: bool | None = None) -> Layers:
    """Copy the weights of a network into folded, packed layers; the network is not changed.

    Args:
        net: the network.
        dtype: float32 or bfloat16.
        winograd: whether convolutions may be computed by Winograd's algorithm, which is for float32 alone. Its rounding
            differs within a tile; on a picture of one colour norms would amplify that to a visible pattern. So None
            leaves it out for networks for which such pictures cannot be painted in another way.
    """
    pixels = net.architecture.pixels
    if winograd is None:
        winograd = stays_flat(net.architecture)
    winograd = winograd and dtype == torch.float32
    return Layers(
        dtype=dtype,
        stem=_layer(fold_block(net.stem, stem_pixels=pixels), dtype),
        downs=(_layer(fold_block(net.down1), dtype), _layer(fold_block(net.down2), dtype)),
        residuals=tuple(
            _residual_layers(net.get_submodule(f"residual{index}"), dtype, winograd)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
        ),
        ups=(_layer(fold_block(net.up1), dtype, winograd), _layer(fold_block(net.up2), dtype, winograd)),
        head=_head_layer(net, dtype, winograd),
    )


def _layer(block: FoldedBlock, dtype: torch.dtype, winograd: bool = False) -> Layer:
    conv: DirectConv | WinogradConv
    if winograd and can_be_winograd(block):
        conv = winograd_conv(joined_kernel(block.kernels), scale=len(block.kernels))
    else:
        conv = DirectConv(
            tuple(Phase(_pack(kernel, block.stride, dtype), kernel.first_row) for kernel in block.kernels)
        )
    return Layer(conv, block.padding_px, block.padding_mode, block.norm, block.interpolation)


def _pack(kernel: Kernel, stride: tuple[int, int], dtype: torch.dtype) -> PackedConv | SeparableConv:
    if kernel.depthwise_I1HW is None:
        return packed_conv(kernel.weight_OIHW, kernel.bias_O, stride=stride, dtype=dtype)
    return SeparableConv(kernel.depthwise_I1HW, kernel.weight_OIHW, stride=stride, dtype=dtype)


def _residual_layers(block: torch.nn.Module, dtype: torch.dtype, winograd: bool) -> tuple[Layer, Layer]:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"expected a ResidualBlock, got {type(block).__name__}")
    return _layer(fold_block(block.block1), dtype, winograd), _layer(fold_block(block.block2), dtype, winograd)


def _head_layer(net: TransformerNet, dtype: torch.dtype, winograd: bool) -> Layer:
    architecture, pad = net.architecture, net.head.padding_px
    tanh = output_tanh(architecture.pixels) if architecture.output == "tanh" else None
    if winograd and LIBRARY is not None:
        kernel = fold_head(net.head, architecture, columns=1)
        return Layer(winograd_head(*kernel, LIBRARY), pad, "reflect", None, tanh=tanh)
    for columns in HEAD_COLUMNS:
        conv = packed_conv(*fold_head(net.head, architecture, columns), stride=(1, columns), dtype=dtype)
        if conv.trusted:
            break
    return Layer(DirectConv((Phase(conv, -pad),)), pad, "reflect", None, tanh=tanh)
