"""The forward pass on a GPU: the folded network over whole batches, with pinned transfers and CUDA graphs.

``FoldedNet`` is the network with the foldings of ``cpu/folding.py`` as one module of plain operators; it also runs on
a CPU, where unit tests compare it with the original. ``CudaPass`` runs it on one GPU: one CUDA graph per shape, several
batches at once. ``CudaPass`` has not run on a GPU yet (see docs/performance.md); ``tests/gpu`` requires the same
tolerances as on the CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stylemill.nn.cpu.channel_stats import pool_groups
from stylemill.nn.cpu.folding import (
    OUTPUT_CENTRE,
    PIXEL_CENTRES,
    FoldedBlock,
    fold_block,
    fold_head,
    output_tanh,
)
from stylemill.nn.pixels import pad_to_network
from stylemill.nn.transformer_net import IMAGE_CHANNELS, NUM_RESIDUAL_BLOCKS, ConvBlock, TransformerNet

MAX_GRAPHS = 8
"""Number of shapes whose graphs are kept; a graph holds the memory of a whole forward pass."""

REPLAYS_BEFORE_GRAPH = 2
"""Batches of a shape that run without a graph; capturing one does not pay off for rare shapes."""


class FoldedNet(nn.Module):
    """The folded network from uint8 pixels to uint8 pixels, channels-last.

    Uses plain operators only, so that ``torch.compile`` can fuse norm, ReLU, residual and padding, and a CUDA
    graph can replay it.

    Args:
        net: the trained network; copied.
        dtype: of the convolutions; statistics are computed in float32.
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
        self.stem = _FoldedConvBlock(fold_block(net.stem, stem_pixels=pixels), dtype)
        self.downs = nn.ModuleList(_FoldedConvBlock(fold_block(block), dtype) for block in (net.down1, net.down2))
        self.residuals = nn.ModuleList(
            _FoldedConvBlock(fold_block(block), dtype)
            for index in range(1, NUM_RESIDUAL_BLOCKS + 1)
            for block in net.get_submodule(f"residual{index}").children()
            if isinstance(block, ConvBlock)
        )
        self.ups = nn.ModuleList(_FoldedConvBlock(fold_block(block), dtype) for block in (net.up1, net.up2))
        weight, bias = fold_head(net.head, net.architecture, columns=1)
        tanh = output_tanh(pixels) if net.architecture.output == "tanh" else None
        self.register_buffer("tanh_gain", None if tanh is None else tanh.gain_C)
        self.register_buffer("tanh_offset", None if tanh is None else tanh.offset_C)
        self.head_padding_px = net.head.padding_px
        self.register_buffer("head_weight", _channels_last(weight, dtype))
        self.register_buffer("head_bias", bias.to(dtype))
        self.register_buffer("centres", torch.tensor(PIXEL_CENTRES, dtype=dtype).view(1, IMAGE_CHANNELS, 1, 1))

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Repaint (N, H, W, 3) uint8, padded by ``pad_to_network``; returns the same shape and dtype."""
        values_NHWC = self.values(images_NHWC) + OUTPUT_CENTRE
        return values_NHWC.round().clamp(0, 255).to(torch.uint8)

    def values(self, images_NHWC: Tensor) -> Tensor:
        """Return (N, H, W, 3) float32, pixel - OUTPUT_CENTRE before rounding."""
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


class _FoldedConvBlock(nn.Module):
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
        depthwise_NCHW = F.conv2d(padded_NCHW, self.depthwise, stride=self.stride, groups=len(self.depthwise))
        return F.conv2d(depthwise_NCHW, self.weight0)

    def _both_parities(self, padded_NCHW: Tensor) -> Tensor:
        """Interleave even and odd output rows; the folded kernels return columns that are interleaved already."""
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


@dataclass
class _Graph:
    images_NHWC: Tensor
    painted_NHWC: Tensor
    graph: torch.cuda.CUDAGraph


class PendingCudaBatch:
    """A batch that the GPU is painting."""

    def __init__(self, painted_NHWC: Tensor, done: torch.cuda.Event, size_px: tuple[int, int]) -> None:
        self._painted_NHWC, self._done, self._size_px = painted_NHWC, done, size_px

    def result(self) -> NDArray[np.uint8]:
        """Wait, and return (N, H, W, 3) uint8 without the padding."""
        self._done.synchronize()
        height_px, width_px = self._size_px
        return self._painted_NHWC[:, :height_px, :width_px].numpy()


class CudaPass:
    """Runs the folded network on one GPU.

    Args:
        net: the trained network; copied.
        dtype: of the convolutions.
        device: a CUDA device.
        compile_network: fuse with ``torch.compile``; the first batch of a shape then takes tens of seconds, which
            pays off only in long runs over few shapes.
    """

    def __init__(
        self, net: TransformerNet, dtype: torch.dtype, device: torch.device, *, compile_network: bool = False
    ) -> None:
        self._device = device
        self._net = FoldedNet(net, dtype).to(device).eval()
        self._forward: Callable[[Tensor], Tensor] = (
            torch.compile(self._net, dynamic=False) if compile_network else self._net
        )
        self._stream = torch.cuda.Stream(device)
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()
        self._seen: dict[tuple[int, ...], int] = {}

    @torch.inference_mode()
    def submit(self, images_NHWC: NDArray[np.uint8]) -> PendingCudaBatch:
        """Start a batch of images of one size and return at once; batches run in order.

        Raises:
            torch.OutOfMemoryError: the batch is too large for the GPU.
        """
        height_px, width_px = images_NHWC.shape[1:3]
        padded_NHWC = np.stack([pad_to_network(image_HWC) for image_HWC in images_NHWC])
        pinned_NHWC = torch.from_numpy(padded_NHWC).pin_memory()
        painted_NHWC = torch.empty(pinned_NHWC.shape, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._stream):
            painted_NHWC.copy_(self._paint(pinned_NHWC), non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return PendingCudaBatch(painted_NHWC, done, (height_px, width_px))

    @torch.inference_mode()
    def values(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (H, W, 3) float32 on the scale of 0 to 255, before rounding."""
        height_px, width_px = image_HWC.shape[:2]
        padded_NHWC = torch.from_numpy(pad_to_network(image_HWC)[None].copy()).to(self._device)
        values_NHWC = self._net.values(padded_NHWC).cpu().numpy() + OUTPUT_CENTRE
        return values_NHWC[0, :height_px, :width_px]

    @torch.inference_mode()
    def seconds(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the seconds that the GPU takes for one batch without the transfers, for benchmarks."""
        padded_NHWC = np.stack([pad_to_network(image_HWC) for image_HWC in images_NHWC])
        resident_NHWC = torch.from_numpy(padded_NHWC).to(self._device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            start.record(self._stream)
            self._paint(resident_NHWC)
            end.record(self._stream)
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def _paint(self, images_NHWC: Tensor) -> Tensor:
        shape = tuple(images_NHWC.shape)
        graph = self._graphs.get(shape)
        if graph is None:
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] <= REPLAYS_BEFORE_GRAPH:
                return self._forward(images_NHWC.to(self._device, non_blocking=True))
            graph = self._capture(shape)
        self._graphs.move_to_end(shape)
        graph.images_NHWC.copy_(images_NHWC, non_blocking=True)
        graph.graph.replay()
        return graph.painted_NHWC

    def _capture(self, shape: tuple[int, ...]) -> _Graph:
        while len(self._graphs) >= MAX_GRAPHS:
            self._graphs.popitem(last=False)
        images_NHWC = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        # A capture requires that earlier calls of this shape have warmed up cuDNN and the compiler.
        cuda_graph = torch.cuda.CUDAGraph()
        self._stream.synchronize()
        with torch.cuda.graph(cuda_graph, stream=self._stream):
            painted_NHWC = self._forward(images_NHWC)
        self._graphs[shape] = _Graph(images_NHWC, painted_NHWC, cuda_graph)
        return self._graphs[shape]
