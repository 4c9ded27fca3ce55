"""What the fast form makes of a network, in words.

The layers of a trained network, folded and packed once for the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylemill.nn.architecture import Architecture
from stylemill.nn.cpu.channel_stats import Norm
from stylemill.nn.cpu.folding import (
    HEAD_COLUMNS,
    OUTPUT_CENTRE,
    FoldedBlock,
    Kernel,
    PaddingMode,
    fold_block,
    fold_pixels_into_head,
    reorder_head,
)
from stylemill.nn.cpu.packed_conv import PackedConv, SeparableConv
from stylemill.nn.transformer_net import NUM_RESIDUAL_BLOCKS, ConvBlock, ResidualBlock, TransformerNet

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


def folded(architecture: Architecture) -> list[str]:
    """Return what the fast and tiled forms have folded into convolutions: it costs nothing."""
    parts = ["the pixels' scale and order are folded into the first convolution"]
    if architecture.output == "linear":
        parts[0] = "the pixels' scale and order are folded into the first and last convolution"
    if architecture.upsampling in _UPSAMPLING:
        parts.append(_UPSAMPLING[architecture.upsampling])
    if architecture.norm == "batch":
        parts.append("batch norm is a scale and shift: no statistics, so large images take a pass less for each")
    return parts


def not_folded(architecture: Architecture) -> list[str]:
    """Return what they do as the plain network does it."""
    parts = []
    if architecture.upsampling not in _UPSAMPLING:
        parts.append(f"{architecture.upsampling} upsampling runs before its convolutions, at full size")
    if architecture.norm != "batch":
        parts.append(_STATISTICS[architecture.norm])
    if architecture.residual == "separable":
        parts.append("each separable convolution is two, with a map between them")
    if architecture.output == "tanh":
        parts.append("the tanh stands between the last convolution and its scale")
    return parts


@dataclass(frozen=True)
class Tap:
    """One convolution of a layer and the input rows that it reads."""

    conv: PackedConv | SeparableConv
    first_row: int
    """Input row, relative to ``stride * output row``, of the kernel's top."""


@dataclass(frozen=True)
class Tanh:
    """What follows the head where the network ends in a tanh: ``gain x tanh(x) + offset``, a centred level."""

    gain_C: Tensor
    offset_C: Tensor

    def apply(self, raw_HWC: Tensor) -> Tensor:
        """Return (H, W, 3) float32 on the scale of the linear head."""
        return torch.tanh(raw_HWC.float()).mul_(self.gain_C).add_(self.offset_C)


@dataclass(frozen=True)
class Layer:
    """A padded convolution and the instance norm behind it.

    A folded x2 upsampling has two taps, for even and odd output rows; each gives rows of doubled width.
    """

    taps: tuple[Tap, ...]
    padding_px: int
    padding_mode: PaddingMode
    norm: Norm | None
    interpolation: str | None = None
    """x2 interpolation before the padding that could not be folded (bilinear, bicubic)."""
    tanh: Tanh | None = None
    """Of a head that ends in one."""

    @property
    def stride(self) -> int:
        """Vertical stride; the horizontal one may be larger where columns are folded into channels."""
        return self.taps[0].conv.stride[0]

    @property
    def scale(self) -> int:
        """Output rows per row that the taps count in: 2 for a folded upsampling."""
        return len(self.taps)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.taps[0].conv.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.taps[0].conv.out_channels // self.scale


@dataclass(frozen=True)
class Layers:
    """All layers of one network in one precision."""

    dtype: torch.dtype
    stem: Layer
    downs: tuple[Layer, Layer]
    residuals: tuple[tuple[Layer, Layer], ...]
    ups: tuple[Layer, Layer]
    head: Layer


def prepare_layers(net: TransformerNet, dtype: torch.dtype) -> Layers:
    """Copy the weights of a network into folded, packed layers; the network stays as it is."""
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
        head=_head_layer(net, net.head, dtype),
    )


def _layer(folded: FoldedBlock, dtype: torch.dtype) -> Layer:
    taps = tuple(Tap(_pack(kernel, folded.stride, dtype), kernel.first_row) for kernel in folded.kernels)
    return Layer(taps, folded.padding_px, folded.padding_mode, folded.norm, folded.interpolation)


def _pack(kernel: Kernel, stride: tuple[int, int], dtype: torch.dtype) -> PackedConv | SeparableConv:
    if kernel.depthwise_I1HW is None:
        return PackedConv(kernel.weight_OIHW, kernel.bias_O, stride=stride, dtype=dtype)
    return SeparableConv(kernel.depthwise_I1HW, kernel.weight_OIHW, stride=stride, dtype=dtype)


def _residual_layers(block: torch.nn.Module, dtype: torch.dtype) -> tuple[Layer, Layer]:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"wanted a ResidualBlock, got {type(block).__name__}")
    return _layer(fold_block(block.block1), dtype), _layer(fold_block(block.block2), dtype)


def _head_layer(net: TransformerNet, block: ConvBlock, dtype: torch.dtype) -> Layer:
    if block.conv.bias is None:
        raise ValueError("the head of the network has a bias")
    pixels = net.architecture.pixels
    plain = block.conv.weight.detach().float().cpu(), block.conv.bias.detach().float().cpu()
    tanh = head_tanh(net)
    fold = fold_pixels_into_head if tanh is None else reorder_head
    for columns in HEAD_COLUMNS:
        conv = PackedConv(*fold(*plain, columns, pixels), stride=(1, columns), dtype=dtype)
        if conv.trusted:
            break
    pad = block.padding_px
    return Layer((Tap(conv, -pad),), pad, "reflect", None, tanh=tanh)


def head_tanh(net: TransformerNet) -> Tanh | None:
    """Return what follows the reordered head of a network that ends in a tanh, or None."""
    if net.architecture.output != "tanh":
        return None
    pixels = net.architecture.pixels
    gain_C = torch.tensor(pixels.std) * pixels.output_scale
    return Tanh(gain_C, torch.tensor(pixels.mean) * pixels.output_scale - OUTPUT_CENTRE)
