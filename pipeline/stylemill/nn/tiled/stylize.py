"""The forward pass of an image that is too large for memory, with the result of the whole-image pass.

Every instance norm needs the statistics of its whole map before the first pixel of the next layer can be computed. So
there are several passes over the image, each in bands of full rows from top to bottom:

- The maps of the residual blocks are small. Two of them (the residual stream and the raw results) are kept, in memory
  or in a scratch file, and each convolution overwrites the raw results just behind the rows it has read.
- One map of half the resolution is kept as well if the memory allows it: first the results of the first downsampling,
  later those of the first upsampling. Without it every pass that needs one of them computes it again.
- The layers at full resolution are cheap and their maps are large. Every pass that needs them computes them again, and
  only their statistics are kept.

A band passes its last rows on to the next one, so nothing is computed twice within a pass and there is no seam: the
arithmetic is that of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stylemill.nn.cpu.channel_stats import ChannelStatistics
from stylemill.nn.cpu.layers import Layer, Layers
from stylemill.nn.cpu.measured_norm import MeasuredNorm
from stylemill.nn.cpu.sources import PixelSource
from stylemill.nn.cpu.whole_image import write_pixels
from stylemill.nn.fast_net import FastNet
from stylemill.nn.memory import TiledPlan, plan_tiled
from stylemill.nn.pixels import check_image, padded_side_px
from stylemill.nn.tiled.passes import BAND_BYTES, Chain, Link, PassRunner, SourceOf
from stylemill.nn.tiled.planes import (
    BoundaryRows,
    FilePlane,
    MemoryPlane,
    Plane,
    PlaneSource,
    add_normalised,
    scratch_file,
)


def stylize_tiled(
    fast_net: FastNet,
    image_HWC: NDArray[np.uint8],
    *,
    max_memory_bytes: int,
    scratch_dir: str | Path | None = None,
    band_bytes: int = BAND_BYTES,
    idle_cores: Callable[[], int] | None = None,
) -> NDArray[np.uint8]:
    """Repaint an image of any size as ``fast_net.stylize`` would, in bounded memory.

    Args:
        fast_net: the network, on a CPU.
        image_HWC: (H, W, 3) uint8.
        max_memory_bytes: limit of the whole process, with the image and the result; maps that do not fit are
            stored in a scratch file.
        scratch_dir: directory of that file, which has no name; None takes the system's.
        band_bytes: features per band; for tests and tuning.
        idle_cores: returns the number of threads to use, and is asked before each pass; the bytes do not depend on it.
            None uses those of ``fast_net``.
    Returns:
        (H, W, 3) uint8.
    Raises:
        ImageError: ``ScratchFull``.
        ValueError: not a non-empty (H, W, 3) uint8 array.
    """
    before = fast_net.threads.num_threads
    try:
        return _paint(fast_net, image_HWC, np.uint8, max_memory_bytes, scratch_dir, band_bytes, idle_cores)
    finally:
        fast_net.threads.resize(before)


def tiled_values(
    fast_net: FastNet, image_HWC: NDArray[np.uint8], *, max_memory_bytes: int, band_bytes: int = BAND_BYTES
) -> NDArray[np.float32]:
    """Return the values of ``stylize_tiled`` before rounding: (H, W, 3) float32 on the scale of 0 to 255."""
    return _paint(fast_net, image_HWC, np.float32, max_memory_bytes, None, band_bytes)


def _paint(
    fast_net: FastNet,
    image_HWC: NDArray[np.uint8],
    dtype: type,
    max_memory_bytes: int,
    scratch_dir: str | Path | None,
    band_bytes: int,
    idle_cores: Callable[[], int] | None = None,
) -> NDArray:
    check_image(image_HWC)
    if fast_net.flat_painter and (flat_HWC := fast_net.flat_painter.paint(image_HWC, dtype)) is not None:
        return flat_HWC
    plan = plan_tiled(
        image_HWC.shape[:2],
        fast_net.architecture,
        fast_net.precision,
        max_memory_bytes=max_memory_bytes,
        num_threads=fast_net.threads.num_threads,
    )
    with torch.inference_mode(), _planes(plan, fast_net.layers, image_HWC.shape[:2], scratch_dir) as planes:
        runner = PassRunner(fast_net.threads, fast_net.layers.dtype, band_bytes, idle_cores, plan.max_threads)
        return _TiledPass(fast_net.layers, runner, image_HWC, planes).run(dtype)


@contextmanager
def _planes(
    plan: TiledPlan, layers: Layers, size_px: tuple[int, ...], scratch_dir: str | Path | None
) -> Iterator[list[Plane]]:
    """Yield the planes of the residual stream, of the raw results, and of half the resolution if memory allows it."""
    padded = [padded_side_px(side) for side in size_px]
    quarter = padded[0] // 4, padded[1] // 4, layers.downs[1].conv.out_channels
    half = padded[0] // 2, padded[1] // 2, layers.downs[0].conv.out_channels
    shapes = [quarter, quarter, half]
    planes: list[Plane] = [MemoryPlane(*shape, layers.dtype) for shape in shapes[: plan.planes_in_memory]]
    if len(planes) >= 2:
        yield planes
        return
    with scratch_file(scratch_dir) as descriptor:
        offset_bytes = 0
        while len(planes) < 2:
            plane = FilePlane(descriptor, offset_bytes, *quarter, layers.dtype)
            planes.append(plane)
            offset_bytes += plane.nbytes
        yield planes


class _TiledPass:
    """The passes over one image, in order; each adds the statistics of one layer."""

    def __init__(self, layers: Layers, runner: PassRunner, image_HWC: NDArray[np.uint8], planes: list[Plane]) -> None:
        self._layers, self._runner, self._image_HWC = layers, runner, image_HWC
        self._half = planes.pop() if len(planes) == 3 else None
        self._planes = planes
        self._height, self._width = (padded_side_px(side) for side in image_HWC.shape[:2])

    def run(self, dtype: type) -> NDArray:
        norm = self._encode()
        for first, second in self._layers.residuals:
            norm = self._residual(first, second, norm)
        return self._decode(norm, dtype)

    def _encode(self) -> MeasuredNorm:
        """Store the raw results of the second downsampling; return their norm."""
        stem, (down1, down2) = self._layers.stem, self._layers.downs
        image = self._image_HWC

        def pixels(_: tuple[int, int]) -> PixelSource:
            return PixelSource(image, self._layers.dtype)

        stem_link = Link(stem, self._runner.statistics(Chain((), stem), pixels, (self._height, self._width)))
        chain, size = Chain((stem_link,), down1), (self._height // 2, self._width // 2)
        down1_link = Link(down1, self._runner.statistics(chain, pixels, size, store=self._half))
        raw, whole = self._planes[1], Chain((stem_link, down1_link), down2)
        chain, source_of = self._from_half(whole, pixels, 2)
        size = raw.height, raw.width
        statistics = self._runner.statistics(chain, source_of, size, store=raw, bands_of=whole)
        return self._with_norm(down2, statistics)

    def _from_half(self, whole: Chain, source_of: SourceOf, num_stored: int) -> tuple[Chain, SourceOf]:
        """Return the end of a chain behind its first links, of the last of which the raw results are stored.

        Its input are these results. If they are not stored, that is the whole chain with its own input.
        """
        if self._half is None:
            return whole, source_of
        stored = whole.links[num_stored - 1]
        half, norm = self._half, self._with_norm(stored.layer, stored.statistics)
        return Chain(whole.links[num_stored:], whole.last), lambda _: PlaneSource(half, norm=norm)

    def _residual(self, first: Layer, second: Layer, norm: MeasuredNorm) -> MeasuredNorm:
        """Run one block over the stored raw results, and replace them by those of its second convolution."""
        stream = self._planes[0]
        # The input of the first block is the encoder's output, which has a ReLU and no residual.
        residual = None if norm.norm.relu else stream
        middle = self._with_norm(first, self._in_place(first, norm, residual=residual, keep_in=stream))
        return self._with_norm(second, self._in_place(second, middle, residual=None, keep_in=None))

    def _in_place(
        self, layer: Layer, norm: MeasuredNorm, *, residual: Plane | None, keep_in: Plane | None
    ) -> ChannelStatistics:
        raw = self._planes[1]
        chain, size = Chain((), layer), (raw.height, raw.width)
        self._runner.use_idle_cores()  # before it divides the rows among the threads
        boundary = BoundaryRows.copy(self._runner.boundaries(chain, raw.width, raw.height), raw, residual)

        def source_of(own_rows: tuple[int, int]) -> PlaneSource:
            return PlaneSource(raw, norm=norm, residual=residual, keep_in=keep_in, own_rows=own_rows, boundary=boundary)

        return self._runner.statistics(chain, source_of, size, store=raw, adapt=False)

    def _decode(self, norm: MeasuredNorm, dtype: type) -> NDArray:
        stream, raw = self._planes
        up1, up2 = self._layers.ups
        rows_per_band = self._runner.rows_per_band(Chain((), self._layers.residuals[0][0]), raw.width)
        add_normalised(raw, norm, stream, rows_per_band)
        # The raw results are no longer needed; the painted image takes their memory.
        del raw
        self._planes.pop()

        def trunk(_: tuple[int, int]) -> PlaneSource:
            return PlaneSource(stream)

        size = self._height // 2 // up1.conv.scale, self._width // 2
        up1_link = Link(up1, self._runner.statistics(Chain((), up1), trunk, size, store=self._half))
        size = self._height // up2.conv.scale, self._width
        whole = Chain((up1_link,), up2)
        chain, source_of = self._from_half(whole, trunk, 1)
        up2_link = Link(up2, self._runner.statistics(chain, source_of, size, bands_of=whole))
        painted_HWC: NDArray = np.empty(self._image_HWC.shape, dtype)
        out_HWC = torch.from_numpy(painted_HWC)
        head = self._layers.head
        whole = Chain((up1_link, up2_link), head)
        chain, source_of = self._from_half(whole, trunk, 1)

        def consume(_: int, first: int, raws: list[torch.Tensor]) -> None:
            write_pixels(raws[0], out_HWC[first : first + raws[0].shape[2]], head.tanh)

        self._runner.run(chain, source_of, (self._height, self._width), consume, bands_of=whole)
        return painted_HWC

    @staticmethod
    def _with_norm(layer: Layer, statistics: ChannelStatistics) -> MeasuredNorm:
        if layer.norm is None:
            raise ValueError("this layer has no norm")
        return MeasuredNorm(layer.norm, statistics)
