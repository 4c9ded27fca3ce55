"""The forward pass of one image that fits into memory.

Every layer convolves its input in strips of rows, and the threads share the strips. A layer's norm needs the statistics
of all strips, so the next layer applies it (see ``sources``).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics, ChannelSums, StatisticsAccumulator, sum_channels
from stylemill.nn.cpu.folding import OUTPUT_CENTRE, OutputTanh
from stylemill.nn.cpu.layers import Layer, Layers
from stylemill.nn.cpu.measured_norm import MeasuredNorm
from stylemill.nn.cpu.padded_map import PaddedMap
from stylemill.nn.cpu.sources import InterpolatedSource, PixelSource, RawMap, Source
from stylemill.nn.cpu.thread_team import SHARED_BUFFERS, ThreadTeam
from stylemill.nn.transformer_net import IMAGE_CHANNELS

STRIP_BYTES = 4 << 20
"""Largest size of the convolution results of one strip, which has at least one group of rows (see ``Layer``).

Larger strips start fewer operators; smaller ones need less fresh memory and keep more threads busy (measurements in
docs/performance.md). It is the same on every machine, because the order of the sums in the statistics depends on it.
"""

MIN_STRIPS = 2
"""Smallest number of strips of a layer, so that two threads can share a small image."""


class WholeImagePass:
    """Runs prepared layers over whole images, one at a time.

    Args:
        layers: the network.
        threads: run the strips of a layer.
    """

    def __init__(self, layers: Layers, threads: ThreadTeam) -> None:
        self._layers, self._threads = layers, threads
        self._statistics: list[ChannelStatistics] = []

    @torch.inference_mode()
    def run(self, image_HWC: NDArray[np.uint8], painted_HWC: NDArray) -> list[ChannelStatistics]:
        """Repaint one image.

        Args:
            image_HWC: (H, W, 3) uint8, any size.
            painted_HWC: (H, W, 3), overwritten with the result: uint8 (rounded and clamped), or float32 (the
                network's values on the scale of 0 to 255).
        Returns:
            the statistics of every layer with a norm, in the order of the network.
        """
        self._statistics = []
        layers = self._layers
        raw = self._convolve(layers.stem, PixelSource(image_HWC, layers.dtype))
        for layer in layers.downs:
            raw = self._convolve(layer, raw)
        residual: PaddedMap | None = None
        for first, second in layers.residuals:
            block_input = self._new_map(first, raw)
            middle = self._convolve(first, raw, block_input)
            if residual is not None:
                SHARED_BUFFERS.put_back(residual.buffer)
            raw = self._convolve(second, middle)
            raw.add_to(block_input)
            residual = block_input
        raw = self._convolve(layers.ups[0], raw)
        if residual is not None:
            SHARED_BUFFERS.put_back(residual.buffer)
        raw = self._convolve(layers.ups[1], raw)
        self._head(layers.head, raw, torch.from_numpy(painted_HWC))
        return self._statistics

    def _new_map(self, layer: Layer, source: Source) -> PaddedMap:
        size = (source.height, source.width, source.channels, layer.padding_px)
        dtype = self._layers.dtype
        return PaddedMap(SHARED_BUFFERS.take(PaddedMap.num_bytes(*size, dtype)), *size, layer.padding_mode, dtype)

    def _convolve(self, layer: Layer, source: Source, padded: PaddedMap | None = None) -> RawMap:
        """Convolve a map and compute its statistics; the caller keeps ``padded`` if it is given."""
        if layer.norm is None:
            raise ValueError("this layer has no norm")
        if layer.interpolation is not None:
            source = InterpolatedSource(source, layer.interpolation, self._layers.dtype)
        target, fixed = padded or self._new_map(layer, source), layer.norm.fixed
        conv = layer.conv
        num_phase_rows = source.height // conv.stride
        out_width = source.width * conv.scale // conv.stride
        row_bytes = out_width * conv.out_channels * self._layers.dtype.itemsize * conv.scale
        rows = layer.whole_groups(_rows_per_strip(num_phase_rows, row_bytes), out_width)
        num_strips = -(-num_phase_rows // rows)
        strips: list[list[Tensor]] = [[] for _ in range(num_strips)]
        sums: list[list[ChannelSums]] = [[] for _ in range(num_strips)]

        def work(first_strip: int, last_strip: int) -> None:
            written = 0
            for index in range(first_strip, last_strip):
                first, last = index * rows, min((index + 1) * rows, num_phase_rows)
                written = _write_input_rows(layer, source, target, first, last, written)
                strips[index] = conv(target.window(*layer.input_rows(first, last)))
                if fixed is None:
                    sums[index] = [part for raw_NCHW in strips[index] for part in sum_channels(raw_NCHW)]

        self._threads.split(num_strips, work)
        if padded is None:
            SHARED_BUFFERS.put_back(target.buffer)
        statistics = fixed or layer.norm.pool(_statistics(sums))
        self._statistics.append(statistics)
        return RawMap(strips, rows, num_phase_rows * conv.scale, MeasuredNorm(layer.norm, statistics))

    def _head(self, layer: Layer, source: Source, out_HWC: Tensor) -> None:
        padded = self._new_map(layer, source)
        row_bytes = source.width * source.channels * self._layers.dtype.itemsize
        rows = layer.whole_groups(_rows_per_strip(source.height, row_bytes), source.width)

        def work(first_strip: int, last_strip: int) -> None:
            written = 0
            for index in range(first_strip, last_strip):
                first, last = index * rows, min((index + 1) * rows, source.height)
                written = _write_input_rows(layer, source, padded, first, last, written)
                (folded_NCHW,) = layer.conv(padded.window(*layer.input_rows(first, last)))
                write_pixels(folded_NCHW, out_HWC[first:last], layer.tanh)

        self._threads.split(-(-source.height // rows), work)
        SHARED_BUFFERS.put_back(padded.buffer)


def _statistics(sums: list[list[ChannelSums]]) -> ChannelStatistics:
    accumulator = StatisticsAccumulator()
    accumulator.add([part for strip in sums for part in strip])
    return accumulator.statistics()


def write_pixels(folded_NCHW: Tensor, out_HWC: Tensor, tanh: OutputTanh | None = None) -> None:
    """Unfold the results of the head into rows of pixels, without the padding.

    Args:
        folded_NCHW: (1, 3 n, h', W' / n) channels-last, n neighbouring pixels, minus OUTPUT_CENTRE; may be overwritten.
        out_HWC: (h <= h', W <= W', 3), overwritten: uint8 (rounded and clamped) or float32 (as it is).
        tanh: follows the head of a network that ends in a tanh, else None.
    """
    rows, columns, _ = out_HWC.shape
    pixels_HWC = folded_NCHW.permute(0, 2, 3, 1).reshape(folded_NCHW.shape[2], -1, IMAGE_CHANNELS)
    if tanh is not None:
        pixels_HWC = tanh.apply(pixels_HWC)
    if out_HWC.dtype != torch.uint8:
        torch.add(pixels_HWC[:rows, :columns].float(), OUTPUT_CENTRE, out=out_HWC)
        return
    signed_HWC = pixels_HWC.clamp_(-OUTPUT_CENTRE, OUTPUT_CENTRE - 1).round_().to(torch.int8)
    # In two's complement adding 128 modulo 256 flips the sign bit.
    torch.bitwise_xor(signed_HWC[:rows, :columns].view(torch.uint8), OUTPUT_CENTRE, out=out_HWC)


def _rows_per_strip(num_rows: int, row_bytes: int) -> int:
    return max(1, min(STRIP_BYTES // row_bytes, -(-num_rows // MIN_STRIPS)))


def _write_input_rows(layer: Layer, source: Source, padded: PaddedMap, first: int, last: int, written: int) -> int:
    """Write the input rows that the phase rows [first, last) read and that are not among the first ``written``.

    Returns the number of rows written so far.
    """
    top, count = layer.input_rows(first, last)
    start, stop = max(0, written, top), min(source.height, top + count)
    if start < stop:
        source.write_rows(padded, start, stop)
        padded.fill_border(start, stop)
    return max(written, stop)
