"""The layers of a trained network, folded and packed once for the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.nn.fast.folding import (
    HEAD_COLUMNS,
    fold_nearest_upsampling,
    fold_pixels_into_head,
    fold_pixels_into_stem,
)
from pipeline.nn.fast.moments import ChannelStatistics
from pipeline.nn.fast.packed_conv import PackedConv
from pipeline.nn.transformer_net import NUM_RESIDUAL_BLOCKS, ConvBlock, ResidualBlock, TransformerNet

PaddingMode = Literal["reflect", "replicate"]


@dataclass(frozen=True)
class Tap:
    """One convolution of a layer and the input rows that it reads."""

    conv: PackedConv
    first_row: int
    """Input row, relative to ``stride * output row``, of the kernel's top."""


@dataclass(frozen=True)
class Norm:
    """The affine part of an instance norm and whether a ReLU follows."""

    weight_C: Tensor
    bias_C: Tensor
    epsilon: float
    relu: bool

    def apply(self, raw_NCHW: Tensor, statistics: ChannelStatistics) -> Tensor:
        """Return the normalised (1, C, h, w) without the ReLU; parameters stay float32 throughout."""
        normal_NCHW: Tensor = torch.native_batch_norm(
            raw_NCHW,
            self.weight_C,
            self.bias_C,
            statistics.mean_C,
            statistics.variance_C,
            False,
            0.0,
            self.epsilon,
        )[0]
        return normal_NCHW


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
    stem_weight = fold_pixels_into_stem(net.stem.conv.weight.detach().float().cpu())
    return Layers(
        dtype=dtype,
        stem=_plain_layer(net.stem, dtype, weight_OIHW=stem_weight),
        downs=(_plain_layer(net.down1, dtype), _plain_layer(net.down2, dtype)),
        residuals=tuple(
            _residual_layers(net.get_submodule(f"residual{index}"), dtype)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
        ),
        ups=(_up_layer(net.up1, dtype), _up_layer(net.up2, dtype)),
        head=_head_layer(net.head, dtype),
    )


def _norm(block: ConvBlock) -> Norm:
    if block.norm is None:
        raise ValueError("only the head of the network has no instance norm")
    return Norm(
        weight_C=block.norm.weight.detach().float().cpu().clone(),
        bias_C=block.norm.bias.detach().float().cpu().clone(),
        epsilon=block.norm.eps,
        relu=block.relu,
    )


def _plain_layer(block: ConvBlock, dtype: torch.dtype, weight_OIHW: Tensor | None = None) -> Layer:
    # The bias is left out: the instance norm behind the convolution subtracts it again.
    weight = block.conv.weight.detach().float().cpu() if weight_OIHW is None else weight_OIHW
    stride = (block.conv.stride[0], block.conv.stride[1])
    conv = PackedConv(weight, None, stride=stride, dtype=dtype)
    pad = block.padding_px
    return Layer((Tap(conv, -pad),), pad, "reflect", _norm(block), block.interpolation)


def _residual_layers(block: torch.nn.Module, dtype: torch.dtype) -> tuple[Layer, Layer]:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"wanted a ResidualBlock, got {type(block).__name__}")
    return _plain_layer(block.block1, dtype), _plain_layer(block.block2, dtype)


def _up_layer(block: ConvBlock, dtype: torch.dtype) -> Layer:
    if block.interpolation != "nearest":
        return _plain_layer(block, dtype)
    even, odd = fold_nearest_upsampling(block.conv.weight.detach().float().cpu())
    taps = (Tap(PackedConv(even, None, dtype=dtype), -1), Tap(PackedConv(odd, None, dtype=dtype), 0))
    return Layer(taps, 1, "replicate", _norm(block))


def _head_layer(block: ConvBlock, dtype: torch.dtype) -> Layer:
    if block.conv.bias is None:
        raise ValueError("the head of the network has a bias")
    plain = block.conv.weight.detach().float().cpu(), block.conv.bias.detach().float().cpu()
    for columns in HEAD_COLUMNS:
        conv = PackedConv(*fold_pixels_into_head(*plain, columns), stride=(1, columns), dtype=dtype)
        if conv.trusted:
            break
    pad = block.padding_px
    return Layer((Tap(conv, -pad),), pad, "reflect", None)
