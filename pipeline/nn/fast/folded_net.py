"""The folded network as one module over whole batches, for devices that run it best in one piece."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.fast.folding import (
    OUTPUT_CENTRE,
    PIXEL_CENTRES,
    fold_nearest_upsampling,
    fold_pixels_into_head,
    fold_pixels_into_stem,
)
from pipeline.nn.transformer_net import IMAGE_CHANNELS, NUM_RESIDUAL_BLOCKS, ConvBlock, TransformerNet


class FoldedNet(nn.Module):
    """uint8 pixels in, uint8 pixels out, channels-last, with the foldings of ``folding``.

    Plain operators only, so that ``torch.compile`` can fuse norm, ReLU, residual and padding, and a CUDA
    graph can replay it.

    Args:
        net: the trained network; copied.
        dtype: of the convolutions; statistics are taken in float32.
    """

    head_weight: Tensor
    head_bias: Tensor
    centres: Tensor

    def __init__(self, net: TransformerNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.stem = _FoldedBlock(net.stem, [fold_pixels_into_stem(_weight(net.stem))], dtype)
        self.downs = nn.ModuleList(_FoldedBlock(block, [_weight(block)], dtype) for block in (net.down1, net.down2))
        self.residuals = nn.ModuleList(
            _FoldedBlock(block, [_weight(block)], dtype)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
            for block in net.get_submodule(f"residual{index}").children()
            if isinstance(block, ConvBlock)
        )
        self.ups = nn.ModuleList(_folded_up(block, dtype) for block in (net.up1, net.up2))
        if net.head.conv.bias is None:
            raise ValueError("the head of the network has a bias")
        bias = net.head.conv.bias.detach().float().cpu()
        weight, bias = fold_pixels_into_head(_weight(net.head), bias, columns=1)
        self.head_padding_px = net.head.padding_px
        self.register_buffer("head_weight", _channels_last(weight, dtype))
        self.register_buffer("head_bias", bias.to(dtype))
        self.register_buffer("centres", torch.tensor(PIXEL_CENTRES, dtype=dtype).view(1, IMAGE_CHANNELS, 1, 1))

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Repaint (N, H, W, 3) uint8, sides as ``pad_to_network`` leaves them, to the same shape and type."""
        values_NHWC = self.values(images_NHWC) + OUTPUT_CENTRE
        return values_NHWC.round().clamp(0, 255).to(torch.uint8)

    def values(self, images_NHWC: Tensor) -> Tensor:
        """Return (N, H, W, 3) float32, the pixel - OUTPUT_CENTRE before rounding."""
        features_NCHW = images_NHWC.permute(0, 3, 1, 2).to(self.dtype) - self.centres
        features_NCHW = self.stem(features_NCHW)
        for block in self.downs:
            features_NCHW = block(features_NCHW)
        blocks = list(self.residuals)
        for first, second in zip(blocks[::2], blocks[1::2], strict=True):
            features_NCHW = second(first(features_NCHW), residual_NCHW=features_NCHW)
        for block in self.ups:
            features_NCHW = block(features_NCHW)
        pad = (self.head_padding_px,) * 4
        out_NCHW = F.conv2d(F.pad(features_NCHW, pad, mode="reflect"), self.head_weight, self.head_bias)
        return out_NCHW.permute(0, 2, 3, 1).float()


class _FoldedBlock(nn.Module):
    """Padding, one convolution per tap, instance norm, ReLU or residual."""

    weight0: Tensor
    weight1: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(self, block: ConvBlock, weights: list[Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        if block.norm is None:
            raise ValueError("only the head of the network has no instance norm")
        self.padding_px, self.stride, self.relu = block.padding_px, block.conv.stride, block.relu
        self.epsilon = block.norm.eps
        self.folded = len(weights) == 2
        self.interpolation = None if self.folded else block.interpolation
        for index, weight_OIHW in enumerate(weights):
            self.register_buffer(f"weight{index}", _channels_last(weight_OIHW, dtype))
        self.register_buffer("gain", block.norm.weight.detach().float().clone().view(1, -1, 1, 1))
        self.register_buffer("offset", block.norm.bias.detach().float().clone().view(1, -1, 1, 1))

    def forward(self, features_NCHW: Tensor, residual_NCHW: Tensor | None = None) -> Tensor:
        if self.interpolation is not None:
            features_NCHW = F.interpolate(features_NCHW, scale_factor=2, mode=self.interpolation, align_corners=False)
        mode = "replicate" if self.folded else "reflect"
        padded_NCHW = F.pad(features_NCHW, (self.padding_px,) * 4, mode=mode)
        raw_NCHW = self._both_parities(padded_NCHW) if self.folded else self._convolve(padded_NCHW)
        raw_NCHW = raw_NCHW.float()
        variance, mean = torch.var_mean(raw_NCHW, dim=(2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.epsilon) * self.gain
        normal_NCHW = raw_NCHW * scale + (self.offset - mean * scale)
        if residual_NCHW is not None:
            normal_NCHW = normal_NCHW + residual_NCHW
        elif self.relu:
            normal_NCHW = F.relu(normal_NCHW)
        return normal_NCHW.to(features_NCHW.dtype, memory_format=torch.channels_last)

    def _convolve(self, padded_NCHW: Tensor) -> Tensor:
        return F.conv2d(padded_NCHW, self.weight0, stride=self.stride)

    def _both_parities(self, padded_NCHW: Tensor) -> Tensor:
        """Interleave even and odd output rows; columns come interleaved out of the folded kernels."""
        even_NCHW = F.conv2d(padded_NCHW[:, :, :-1], self.weight0)
        odd_NCHW = F.conv2d(padded_NCHW[:, :, 1:], self.weight1)
        batch, channels, height, width = even_NCHW.shape
        rows_NHRWC = torch.stack((even_NCHW, odd_NCHW), dim=3).permute(0, 2, 3, 4, 1)
        doubled_NHWC = rows_NHRWC.reshape(batch, 2 * height, 2 * width, channels // 2)
        return doubled_NHWC.permute(0, 3, 1, 2)


def _folded_up(block: ConvBlock, dtype: torch.dtype) -> _FoldedBlock:
    weight = _weight(block)
    folded = block.interpolation == "nearest"
    return _FoldedBlock(block, list(fold_nearest_upsampling(weight)) if folded else [weight], dtype)


def _weight(block: ConvBlock) -> Tensor:
    return block.conv.weight.detach().float().cpu()


def _channels_last(weight_OIHW: Tensor, dtype: torch.dtype) -> Tensor:
    return weight_OIHW.to(dtype).contiguous(memory_format=torch.channels_last)
