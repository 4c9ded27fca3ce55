"""The layers of a trained network, folded and packed once for the CPU.

``describe_folded`` and ``describe_unfolded`` put in words which operations of an architecture cost nothing in this
form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylemill.nn.architecture import Architecture
from stylemill.nn.cpu.channel_stats import FoldedNorm
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
class Phase:
    """One convolution of a layer and the input rows that it reads.

    Most layers have one phase. A folded x2 upsampling has two, for even and odd output rows; each returns rows of
    doubled width. A "phase row" is a row of a phase's output: output row ``len(phases) x phase row + phase``.
    """

    conv: PackedConv | SeparableConv
    first_row: int
    """Input row at the kernel's top, relative to ``stride * phase row``."""


@dataclass(frozen=True)
class Layer:
    """A padded convolution and the norm behind it."""

    phases: tuple[Phase, ...]
    padding_px: int
    padding_mode: PaddingMode
    norm: FoldedNorm | None
    interpolation: str | None = None
    """x2 interpolation before the padding, where it cannot be folded (bilinear, bicubic)."""
    tanh: OutputTanh | None = None
    """Follows the head of a network that ends in a tanh."""

    @property
    def stride(self) -> int:
        """Vertical stride; the horizontal one is larger where columns are folded into channels."""
        return self.phases[0].conv.stride[0]

    @property
    def scale(self) -> int:
        """Output rows per phase row: 2 for a folded upsampling, else 1."""
        return len(self.phases)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.phases[0].conv.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.phases[0].conv.out_channels // self.scale


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
        """Return a description of each convolution as it runs on this machine, in the order of the layers."""
        residuals = [layer for pair in self.residuals for layer in pair]
        layers = (self.stem, *self.downs, *residuals, *self.ups, self.head)
        return [phase.conv.describe() for layer in layers for phase in layer.phases]


def prepare_layers(net: TransformerNet, dtype: torch.dtype) -> Layers:
    """Copy the weights of a network into folded, packed layers; the network is not changed."""
    pixels = net.architecture.pixels
    return Layers(
        dtype=dtype,
        stem=_layer(fold_block(net.stem, stem_pixels=pixels), dtype),
        downs=(_layer(fold_block(net.down1), dtype), _layer(fold_block(net.down2), dtype)),
        residuals=tuple(
            _residual_layers(net.get_submodule(f"residual{index}"), dtype)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
        ),
        ups=(_layer(fold_block(net.up1), dtype), _layer(fold_block(net.up2), dtype)),
        head=_head_layer(net, dtype),
    )


def _layer(block: FoldedBlock, dtype: torch.dtype) -> Layer:
    phases = tuple(Phase(_pack(kernel, block.stride, dtype), kernel.first_row) for kernel in block.kernels)
    return Layer(phases, block.padding_px, block.padding_mode, block.norm, block.interpolation)


def _pack(kernel: Kernel, stride: tuple[int, int], dtype: torch.dtype) -> PackedConv | SeparableConv:
    if kernel.depthwise_I1HW is None:
        return packed_conv(kernel.weight_OIHW, kernel.bias_O, stride=stride, dtype=dtype)
    return SeparableConv(kernel.depthwise_I1HW, kernel.weight_OIHW, stride=stride, dtype=dtype)


def _residual_layers(block: torch.nn.Module, dtype: torch.dtype) -> tuple[Layer, Layer]:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"expected a ResidualBlock, got {type(block).__name__}")
    return _layer(fold_block(block.block1), dtype), _layer(fold_block(block.block2), dtype)


def _head_layer(net: TransformerNet, dtype: torch.dtype) -> Layer:
    architecture, pad = net.architecture, net.head.padding_px
    for columns in HEAD_COLUMNS:
        conv = packed_conv(*fold_head(net.head, architecture, columns), stride=(1, columns), dtype=dtype)
        if conv.trusted:
            break
    tanh = output_tanh(architecture.pixels) if architecture.output == "tanh" else None
    return Layer((Phase(conv, -pad),), pad, "reflect", None, tanh=tanh)
