"""One pass over a large image: a chain of layers in bands of rows, for the results or statistics of the last layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics, StatisticsAccumulator, sum_channels
from stylemill.nn.cpu.layers import Layer
from stylemill.nn.cpu.sources import Source
from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.tiled.planes import Plane
from stylemill.nn.tiled.stream import LayerStream

BAND_BYTES = 4 << 20
"""Largest size of the features of a band at any resolution; a band has at least one group of rows (see ``Layer``).

Measured in docs/performance.md. It is the same on every machine, because the order of the sums in the statistics
depends on it.
"""

SourceOf = Callable[[tuple[int, int]], Source]
"""Returns the input of a chain for the thread that computes the given phase rows of its last layer."""


@dataclass(frozen=True)
class Link:
    """A layer within a chain, with the statistics that an earlier pass computed."""

    layer: Layer
    statistics: ChannelStatistics


@dataclass(frozen=True)
class Chain:
    """Consecutive layers; all but the last are normalised while the chain runs."""

    links: tuple[Link, ...]
    last: Layer

    def stream(self, source: Source, dtype: torch.dtype) -> LayerStream:
        """Return the last layer as a stream over the rows of ``source``."""
        for link in self.links:
            source = LayerStream(link.layer, source, dtype, link.statistics)
        return LayerStream(self.last, source, dtype)

    @property
    def input_rows_per_row(self) -> int:
        """Rows of the finest map in the chain per phase row of the last layer, at least 1."""
        ratio = finest = self.last.conv.stride
        for link in reversed(self.links):
            ratio = ratio * link.layer.conv.stride // link.layer.conv.scale
            finest = max(finest, ratio)
        return max(1, finest)


class PassRunner:
    """Runs chains over a large image.

    Args:
        threads: each computes a contiguous range of bands with its own instance of the chain.
        dtype: of the features.
        band_bytes: see ``BAND_BYTES``.
        idle_cores: returns the number of threads to use from now on; None leaves them as they are.
        max_threads: for which there is memory.
    """

    def __init__(
        self,
        threads: ThreadTeam,
        dtype: torch.dtype,
        band_bytes: int = BAND_BYTES,
        idle_cores: Callable[[], int] | None = None,
        max_threads: int = 1,
    ) -> None:
        self._threads, self._dtype, self._band_bytes = threads, dtype, band_bytes
        self._idle_cores, self._max_threads = idle_cores, max_threads

    def use_idle_cores(self) -> None:
        """Adapt the number of threads to what the machine has to spare; to be called between two passes."""
        if self._idle_cores is not None:
            self._threads.resize(min(self._max_threads, self._idle_cores()))

    def rows_per_band(self, chain: Chain, width: int) -> int:
        """Return the phase rows per band of the last layer, whose output is ``width`` wide."""
        conv = chain.last.conv
        row_bytes = width * self._dtype.itemsize * max(conv.in_channels, conv.out_channels * conv.scale)
        return chain.last.whole_groups(self._band_bytes // (row_bytes * chain.input_rows_per_row), width)

    def boundaries(self, chain: Chain, width: int, num_phase_rows: int) -> list[int]:
        """Return the phase rows at which the range of one thread ends and that of the next begins."""
        rows = self.rows_per_band(chain, width)
        return [first * rows for first, _ in self._threads.ranges(-(-num_phase_rows // rows))[1:]]

    def statistics(
        self,
        chain: Chain,
        source_of: SourceOf,
        size: tuple[int, int],
        store: Plane | None = None,
        *,
        bands_of: Chain | None = None,
        adapt: bool = True,
    ) -> ChannelStatistics:
        """Return the statistics of the last layer's raw results, and store these if asked to.

        Args:
            chain: what to run.
            source_of: its input.
            size: phase rows and columns of the last layer's output.
            store: where to write the raw results, or None.
            bands_of: a longer chain with the same last layer, in whose bands to run. The order of the sums, and with
                it the last bits of the statistics, then do not depend on what is stored and what is computed again.
            adapt: whether the number of threads may change before the pass.
        """
        norm = chain.last.norm
        if norm is None:
            raise ValueError("this layer has no norm")
        if norm.fixed is not None and store is None:
            return norm.fixed
        num_bands = self._num_bands(bands_of or chain, size)
        parts: list[StatisticsAccumulator] = [StatisticsAccumulator() for _ in range(num_bands)]

        def consume(band: int, first: int, raws: list[Tensor]) -> None:
            for raw_NCHW in raws:
                if norm.fixed is None:
                    parts[band].add(sum_channels(raw_NCHW))
            if store is not None:
                store.write(first * len(raws), _interleaved([raw_NCHW[0].permute(1, 2, 0) for raw_NCHW in raws]))

        self.run(chain, source_of, size, consume, bands_of=bands_of, adapt=adapt)
        if norm.fixed is not None:
            return norm.fixed
        accumulator = StatisticsAccumulator()
        accumulator.merge(parts)
        return norm.pool(accumulator.statistics())

    def run(
        self,
        chain: Chain,
        source_of: SourceOf,
        size: tuple[int, int],
        consume: Callable[[int, int, list[Tensor]], None],
        *,
        bands_of: Chain | None = None,
        adapt: bool = True,
    ) -> None:
        """Run a chain and call ``consume(band, first_row, raws)`` for every band, in order per thread."""
        if adapt:
            self.use_idle_cores()
        num_rows, width = size
        rows = self.rows_per_band(bands_of or chain, width)

        def work(first_band: int, last_band: int) -> None:
            own_rows = first_band * rows, min(last_band * rows, num_rows)
            stream = chain.stream(source_of(own_rows), self._dtype)
            for band in range(first_band, last_band):
                first = band * rows
                consume(band, first, stream.convolve(first, min(first + rows, num_rows)))

        self._threads.split(self._num_bands(bands_of or chain, size), work)

    def _num_bands(self, chain: Chain, size: tuple[int, int]) -> int:
        num_rows, width = size
        return -(-num_rows // self.rows_per_band(chain, width))


def _interleaved(phases: list[Tensor]) -> Tensor:
    """Return the (n, W, C) rows of each phase as (phases x n, W, C), in the order of the map."""
    return phases[0] if len(phases) == 1 else torch.stack(phases, dim=1).flatten(0, 1)
