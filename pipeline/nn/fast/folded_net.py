"""The folded network as one module over whole batches, for devices that run it best in one piece."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.fast.folded_block import FoldedBlock, fold_block
from pipeline.nn.fast.folding import OUTPUT_CENTRE, PIXEL_CENTRES, fold_pixels_into_head, reorder_head
from pipeline.nn.fast.layers import head_tanh
from pipeline.nn.fast.norm import pool_groups
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
    tanh_gain: Tensor | None
    tanh_offset: Tensor | None

    def __init__(self, net: TransformerNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        pixels = net.architecture.pixels
        self.stem = _FoldedModule(fold_block(net.stem, stem_pixels=pixels), dtype)
        self.downs = nn.ModuleList(_FoldedModule(fold_block(block), dtype) for block in (net.down1, net.down2))
        self.residuals = nn.ModuleList(
            _FoldedModule(fold_block(block), dtype)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
            for block in net.get_submodule(f"residual{index}").children()
            if isinstance(block, ConvBlock)
        )
        self.ups = nn.ModuleList(_FoldedModule(fold_block(block), dtype) for block in (net.up1, net.up2))
        if net.head.conv.bias is None:
            raise ValueError("the head of the network has a bias")
        plain = net.head.conv.weight.detach().float().cpu(), net.head.conv.bias.detach().float().cpu()
        tanh = head_tanh(net)
        weight, bias = (fold_pixels_into_head if tanh is None else reorder_head)(*plain, 1, pixels)
        self.register_buffer("tanh_gain", None if tanh is None else tanh.gain_C)
        self.register_buffer("tanh_offset", None if tanh is None else tanh.offset_C)
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
        out_NHWC = out_NCHW.permute(0, 2, 3, 1).float()
        if self.tanh_gain is None or self.tanh_offset is None:
            return out_NHWC
        return torch.tanh(out_NHWC) * self.tanh_gain + self.tanh_offset


class _FoldedModule(nn.Module):
    """Padding, one convolution per kernel, norm, ReLU or residual."""

    weight0: Tensor
    gain: Tensor
    offset: Tensor
    shift: Tensor | None
    fixed_mean: Tensor | None
    fixed_variance: Tensor | None
    depthwise: Tensor | None

    def __init__(self, folded: FoldedBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.padding_px, self.stride, self.interpolation = folded.padding_px, folded.stride, folded.interpolation
        self.padding_mode = "constant" if folded.padding_mode == "zeros" else folded.padding_mode
        self.first_rows = [kernel.first_row for kernel in folded.kernels]
        self.heights = [kernel.weight_OIHW.shape[2] for kernel in folded.kernels]
        for index, kernel in enumerate(folded.kernels):
            self.register_buffer(f"weight{index}", _channels_last(kernel.weight_OIHW, dtype))
            self.register_buffer(f"bias{index}", None if kernel.bias_O is None else kernel.bias_O.to(dtype))
        depthwise = folded.kernels[0].depthwise_I1HW
        self.register_buffer("depthwise", None if depthwise is None else _channels_last(depthwise, dtype))
        norm = folded.norm
        self.relu, self.epsilon, self.group_size = norm.relu, norm.epsilon, norm.group_size
        self.register_buffer("gain", norm.weight_C.view(1, -1, 1, 1))
        self.register_buffer("offset", norm.bias_C.view(1, -1, 1, 1))
        self.register_buffer("shift", norm.shift_C)
        fixed = norm.fixed
        self.register_buffer("fixed_mean", None if fixed is None else fixed.mean_C.view(1, -1, 1, 1))
        self.register_buffer("fixed_variance", None if fixed is None else fixed.variance_C.view(1, -1, 1, 1))

    def forward(self, features_NCHW: Tensor, residual_NCHW: Tensor | None = None) -> Tensor:
        if self.interpolation is not None:
            features_NCHW = F.interpolate(features_NCHW, scale_factor=2, mode=self.interpolation, align_corners=False)
        padded_NCHW = F.pad(features_NCHW, (self.padding_px,) * 4, mode=self.padding_mode)
        raw_NCHW = (self._both_parities(padded_NCHW) if len(self.heights) == 2 else self._convolve(padded_NCHW)).float()
        mean, variance = self._statistics(raw_NCHW)
        scale = torch.rsqrt(variance + self.epsilon) * self.gain
        normal_NCHW = raw_NCHW * scale + (self.offset - mean * scale)
        if residual_NCHW is not None:
            normal_NCHW = normal_NCHW + residual_NCHW
        elif self.relu:
            normal_NCHW = F.relu(normal_NCHW)
        return normal_NCHW.to(features_NCHW.dtype, memory_format=torch.channels_last)

    def _statistics(self, raw_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance for every channel, (1 or N, C, 1, 1)."""
        if self.fixed_mean is not None and self.fixed_variance is not None:
            return self.fixed_mean, self.fixed_variance
        variance, mean = torch.var_mean(raw_NCHW, dim=(2, 3), correction=0)
        if self.group_size > 1 or self.shift is not None:
            mean, variance = pool_groups(mean, variance, self.shift, self.group_size)
        return mean[:, :, None, None], variance[:, :, None, None]

    def _convolve(self, padded_NCHW: Tensor) -> Tensor:
        if self.depthwise is None:
            return F.conv2d(padded_NCHW, self.weight0, stride=self.stride)
        each_NCHW = F.conv2d(padded_NCHW, self.depthwise, stride=self.stride, groups=len(self.depthwise))
        return F.conv2d(each_NCHW, self.weight0)

    def _both_parities(self, padded_NCHW: Tensor) -> Tensor:
        """Interleave even and odd output rows; columns come interleaved out of the folded kernels."""
        low_height = padded_NCHW.shape[2] - 2 * self.padding_px
        rows = []
        for index, (first_row, height) in enumerate(zip(self.first_rows, self.heights, strict=True)):
            top = self.padding_px + first_row
            window_NCHW = padded_NCHW[:, :, top : top + low_height + height - 1]
            rows.append(F.conv2d(window_NCHW, getattr(self, f"weight{index}"), getattr(self, f"bias{index}")))
        batch, channels, height, width = rows[0].shape
        rows_NHRWC = torch.stack(rows, dim=3).permute(0, 2, 3, 4, 1)
        doubled_NHWC = rows_NHRWC.reshape(batch, 2 * height, 2 * width, channels // 2)
        return doubled_NHWC.permute(0, 3, 1, 2)


def _channels_last(weight_OIHW: Tensor, dtype: torch.dtype) -> Tensor:
    return weight_OIHW.to(dtype).contiguous(memory_format=torch.channels_last)
