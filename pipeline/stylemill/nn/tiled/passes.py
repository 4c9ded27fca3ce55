"""One pass over a large image: a chain of layers in bands, and what is kept of the last one's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylemill.nn.cpu.channel_stats import ChannelStatistics, Moments, sum_piece
from stylemill.nn.cpu.layers import Layer
from stylemill.nn.cpu.sources import Source
from stylemill.nn.cpu.thread_team import Team
from stylemill.nn.tiled.planes import Plane
from stylemill.nn.tiled.stream import LayerStream

BAND_BYTES = 4 << 20
"""Most bytes of features that a band holds at any resolution, but never less than one row.

Measured in docs/performance.md. A constant, because the order of the sums in the statistics hangs on it.
"""

SourceOf = Callable[[tuple[int, int]], Source]
"""Makes the input of a chain for the thread that computes these tap rows of its last layer."""


@dataclass(frozen=True)
class Link:
    """A layer within a chain; its statistics are known from an earlier pass."""

    layer: Layer
    statistics: ChannelStatistics


@dataclass(frozen=True)
class Chain:
    """Layers that run into each other, each but the last finished on the way."""

    links: tuple[Link, ...]
    last: Layer

    def stream(self, source: Source, dtype: torch.dtype) -> LayerStream:
        """Put the chain on a source."""
        for link in self.links:
            source = LayerStream(link.layer, source, dtype, link.statistics)
        return LayerStream(self.last, source, dtype)

    @property
    def input_rows_per_row(self) -> int:
        """Rows of the finest map above the last layer per row of its output, at least 1."""
        ratio, finest = self.last.stride, self.last.stride
        for link in reversed(self.links):
            ratio = ratio * link.layer.stride // link.layer.scale
            finest = max(finest, ratio)
        return max(1, finest)


class PassRunner:
    """Runs chains over a large image with a team of threads.

    Args:
        team: the threads; each computes a contiguous range of bands with a chain of its own.
        dtype: of the features.
        band_bytes: see ``BAND_BYTES``.
        known: statistics of the layers in the order in which they are asked for, if they need not be
            computed; empty otherwise.
    """

    def __init__(
        self,
        team: Team,
        dtype: torch.dtype,
        band_bytes: int = BAND_BYTES,
        known: Sequence[ChannelStatistics] = (),
    ) -> None:
        self._team, self._dtype, self._band_bytes = team, dtype, band_bytes
        self._known = list(known)

    def rows_per_band(self, chain: Chain, width: int) -> int:
        """Return how many tap rows of the last layer, W wide, make a band."""
        last = chain.last
        row_bytes = width * self._dtype.itemsize * max(last.in_channels, last.out_channels * last.scale)
        return max(1, self._band_bytes // (row_bytes * chain.input_rows_per_row))

    def cuts(self, chain: Chain, width: int, num_tap_rows: int) -> list[int]:
        """Return the tap rows where the range of one thread ends and that of the next begins."""
        rows = self.rows_per_band(chain, width)
        return [first * rows for first, _ in self._team.ranges(-(-num_tap_rows // rows))[1:]]

    def statistics(
        self, chain: Chain, source_of: SourceOf, size: tuple[int, int], store: Plane | None = None
    ) -> ChannelStatistics:
        """Run a chain for the statistics of its last layer's raw results, and perhaps for these.

        Args:
            chain: what to run.
            source_of: its input.
            size: tap rows and columns of the last layer's output.
            store: where raw results go (a last layer with one tap), or None to forget them.
        """
        norm = chain.last.norm
        if norm is None:
            raise ValueError("this layer has no norm")
        known = self._known.pop(0) if self._known else norm.fixed
        if known is not None and store is None:
            return known
        parts: list[Moments] = [Moments() for _ in range(self._num_bands(chain, size))]

        def consume(band: int, first: int, raws: list[Tensor]) -> None:
            for raw_NCHW in raws:
                if known is None:
                    parts[band].add(sum_piece(raw_NCHW))
                if store is not None:
                    store.write(first, raw_NCHW.permute(0, 2, 3, 1)[0])

        self.run(chain, source_of, size, consume)
        if known is not None:
            return known
        moments = Moments()
        moments.merge(parts)
        return norm.pooled(moments.statistics())

    def run(
        self,
        chain: Chain,
        source_of: SourceOf,
        size: tuple[int, int],
        consume: Callable[[int, int, list[Tensor]], None],
    ) -> None:
        """Run a chain and call ``consume(band, first_row, raws)`` for every band, in order per thread."""
        num_rows, width = size
        rows = self.rows_per_band(chain, width)

        def work(first_band: int, last_band: int) -> None:
            own_rows = first_band * rows, min(last_band * rows, num_rows)
            stream = chain.stream(source_of(own_rows), self._dtype)
            for band in range(first_band, last_band):
                first = band * rows
                consume(band, first, stream.convolve(first, min(first + rows, num_rows)))

        self._team.split(self._num_bands(chain, size), work)

    def _num_bands(self, chain: Chain, size: tuple[int, int]) -> int:
        num_rows, width = size
        return -(-num_rows // self.rows_per_band(chain, width))
