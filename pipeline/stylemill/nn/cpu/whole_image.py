"""The forward pass of one image that fits in memory, strip by strip through every layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics, Moments, PieceSums, sum_piece
from stylemill.nn.cpu.folding import OUTPUT_CENTRE
from stylemill.nn.cpu.layers import Layer, Layers, Tanh
from stylemill.nn.cpu.padded_map import Frame
from stylemill.nn.cpu.sources import InterpolatedSource, PixelSource, RawMap, Source
from stylemill.nn.cpu.thread_team import SHARED, Team
from stylemill.nn.transformer_net import IMAGE_CHANNELS

STRIP_BYTES = 4 << 20
"""Most bytes of convolution results in one strip.

Larger strips start fewer operators, smaller ones need less fresh memory and keep more threads busy; see
docs/performance.md for what was measured. It is a constant, not a property of the machine, because the
order of the sums in the statistics hangs on it.
"""

MIN_STRIPS = 2
"""Strips that a layer is cut into however small it is, so that two threads can share it."""


class WholePass:
    """Runs prepared layers over whole images, one at a time.

    Args:
        layers: the network.
        team: the threads to use.
    """

    def __init__(self, layers: Layers, team: Team) -> None:
        self._layers, self._team = layers, team
        self._seen: list[ChannelStatistics] = []

    @torch.inference_mode()
    def run(self, image_HWC: NDArray[np.uint8], painted_HWC: NDArray) -> list[ChannelStatistics]:
        """Repaint one image.

        Args:
            image_HWC: (H, W, 3) uint8, any size.
            painted_HWC: (H, W, 3), receives the result: uint8 rounded and clamped, or float32 as the
                network gives it on the scale of 0 to 255.
        Returns:
            the statistics of every normed layer, in the order of the network.
        """
        self._seen = []
        layers = self._layers
        raw = self._normed(layers.stem, PixelSource(image_HWC, layers.dtype))
        for layer in layers.downs:
            raw = self._normed(layer, raw)
        residual: Frame | None = None
        for first, second in layers.residuals:
            block_input = self._frame(first, raw)
            middle = self._normed(first, raw, block_input)
            if residual is not None:
                SHARED.give_back(residual.buffer)
            raw = self._normed(second, middle)
            raw.add_to(block_input)
            residual = block_input
        raw = self._normed(layers.ups[0], raw)
        if residual is not None:
            SHARED.give_back(residual.buffer)
        raw = self._normed(layers.ups[1], raw)
        self._head(layers.head, raw, torch.from_numpy(painted_HWC))
        return self._seen

    def _frame(self, layer: Layer, source: Source) -> Frame:
        size = (source.height, source.width, source.channels, layer.padding_px)
        dtype = self._layers.dtype
        return Frame(SHARED.take(Frame.num_bytes(*size, dtype)), *size, layer.padding_mode, dtype)

    def _normed(self, layer: Layer, source: Source, frame: Frame | None = None) -> RawMap:
        """Convolve a map and take its statistics; a frame that is given stays with the caller."""
        if layer.norm is None:
            raise ValueError("this layer has no norm")
        if layer.interpolation is not None:
            source = InterpolatedSource(source, layer.interpolation, self._layers.dtype)
        filled, fixed = frame or self._frame(layer, source), layer.norm.fixed
        rows_in_all = source.height // layer.stride
        out_width = source.width * layer.scale // layer.stride
        row_bytes = out_width * layer.out_channels * self._layers.dtype.itemsize * layer.scale
        rows = _rows_per_strip(rows_in_all, row_bytes)
        num_strips = -(-rows_in_all // rows)
        strips: list[list[Tensor]] = [[] for _ in range(num_strips)]
        sums: list[list[PieceSums]] = [[] for _ in range(num_strips)]

        def work(first_strip: int, last_strip: int) -> None:
            written = 0
            for index in range(first_strip, last_strip):
                first, last = index * rows, min((index + 1) * rows, rows_in_all)
                written = _fill(layer, source, filled, first, last, written)
                for tap in layer.taps:
                    window = filled.window(*_tap_rows(tap.first_row, tap.conv.kernel_height, layer, first, last))
                    raw_NCHW = unfold_columns(tap.conv(window), layer.scale)
                    strips[index].append(raw_NCHW)
                    if fixed is None:
                        sums[index].extend(sum_piece(raw_NCHW))

        self._team.split(num_strips, work)
        if frame is None:
            SHARED.give_back(filled.buffer)
        statistics = fixed or layer.norm.pooled(_statistics(sums))
        self._seen.append(statistics)
        return RawMap(strips, rows, rows_in_all * layer.scale, statistics, layer.norm)

    def _head(self, layer: Layer, source: Source, out_HWC: Tensor) -> None:
        frame = self._frame(layer, source)
        row_bytes = source.width * source.channels * self._layers.dtype.itemsize
        rows = _rows_per_strip(source.height, row_bytes)
        (tap,) = layer.taps

        def work(first_strip: int, last_strip: int) -> None:
            written = 0
            for index in range(first_strip, last_strip):
                first, last = index * rows, min((index + 1) * rows, source.height)
                written = _fill(layer, source, frame, first, last, written)
                window = frame.window(*_tap_rows(tap.first_row, tap.conv.kernel_height, layer, first, last))
                write_pixels(tap.conv(window), out_HWC[first:last], layer.tanh)

        self._team.split(-(-source.height // rows), work)
        SHARED.give_back(frame.buffer)


def _statistics(sums: list[list[PieceSums]]) -> ChannelStatistics:
    moments = Moments()
    moments.add([piece for strip in sums for piece in strip])
    return moments.statistics()


def write_pixels(folded_NCHW: Tensor, out_HWC: Tensor, tanh: Tanh | None = None) -> None:
    """Unfold what the head gives into rows of pixels, and crop the padding off.

    Args:
        folded_NCHW: (1, 12, h', W' / 4) channels-last, pixel - OUTPUT_CENTRE; may be overwritten.
        out_HWC: (h <= h', W <= W', 3) uint8 (clamped, rounded) or float32 (as it is).
        tanh: what makes centred pixels of what the head gives, if that is on another scale.
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


def _tap_rows(first_row: int, kernel_height: int, layer: Layer, first: int, last: int) -> tuple[int, int]:
    """Return the first input row and the number of input rows that output rows [first, last) read."""
    return first * layer.stride + first_row, (last - first - 1) * layer.stride + kernel_height


def _fill(layer: Layer, source: Source, frame: Frame, first: int, last: int, written: int) -> int:
    """Write the input rows that output rows [first, last) read, from ``written`` on; return how far."""
    needs = [_tap_rows(tap.first_row, tap.conv.kernel_height, layer, first, last) for tap in layer.taps]
    start = max(0, written, min(top for top, _ in needs))
    stop = min(source.height, max(top + count for top, count in needs))
    if start < stop:
        source.write_rows(frame, start, stop)
        frame.close_rows(start, stop)
    return max(written, stop)


def unfold_columns(folded_NCHW: Tensor, scale: int) -> Tensor:
    """View (1, scale C, h, w) channels-last as (1, C, h, scale w): same memory, columns side by side."""
    if scale == 1:
        return folded_NCHW
    _, channels, height, width = folded_NCHW.shape
    rows_NHWC = folded_NCHW.permute(0, 2, 3, 1).view(1, height, width * scale, channels // scale)
    return rows_NHWC.permute(0, 3, 1, 2)
