"""Batches in flight, on a CPU: what is painted together equals what is painted alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from stylemill.errors import ImageError
from stylemill.images.source_image import Frame, SourceImage
from stylemill.nn.fast_net import FastNet, Flight
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import BATCHES_IN_FLIGHT, BatchPainter, Controlled
from stylemill.stylizing.sample import Painted, Sample
from tests.drawn import drawn_image, style_model

SIZES = [(20, 30), (24, 24), (20, 30), (20, 30), (24, 24), (20, 30), (16, 40), (20, 30), (20, 30)]


class SmallDevice(FastNet):
    """A network on a device that holds so many pixels in flight; it remembers the batches that it took."""

    def __init__(self, room_pixels: int = 10**9, seed: int = 0) -> None:
        super().__init__(style_model(seed=seed).build_network(), precision="float32")
        self.room_pixels = room_pixels
        self.taken: list[int] = []
        self.refused = 0
        self.most_in_flight = 0
        self._in_flight: list[int] = []

    def submit_batch(self, images_NHWC: np.ndarray) -> Flight:
        pixels = int(np.prod(images_NHWC.shape[:3]))
        if sum(self._in_flight) + pixels > self.room_pixels:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")
        self.taken.append(len(images_NHWC))
        self._in_flight.append(pixels)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        return _Flying(super().submit_batch(images_NHWC), self._in_flight)


class _Flying:
    def __init__(self, flight: Flight, in_flight: list[int]) -> None:
        self._flight, self._in_flight = flight, in_flight

    def result(self) -> np.ndarray:
        self._in_flight.pop(0)
        return self._flight.result()


def config(**changes: Any) -> StylizeConfig:
    return StylizeConfig(model=("m",), input="i", out="o", **changes)


def samples(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Sample]:
    made = []
    for number, size in enumerate(sizes):
        source = SourceImage(image_HWC=drawn_image(*size, number), source_format="png", source_mode="RGB")
        made.append(Sample(planned={"key": f"{number}.png"}, source=source))
    return made


def one_by_one(net: FastNet, painted: Sequence[Sample], settings: StylizeConfig) -> None:
    controlled = Controlled(settings)
    for sample in painted:
        assert sample.source is not None
        source_HWC = controlled.limited(sample.source.image_HWC)
        wanted_HWC = controlled.finished(source_HWC, net.stylize(controlled.for_network(source_HWC)))
        got = sample.painted["waves"]
        assert isinstance(got, Painted)
        np.testing.assert_array_equal(got.frames_HWC[0], wanted_HWC)
        assert got.stylize_ms >= 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"strength": 0.5, "preserve_color": True}, {"max_size_px": 18}, {"texture_scale": 0.5}],
    ids=["plain", "colour", "smaller", "strokes"],
)
def test_together_equals_alone(changes: dict[str, Any]):
    net, work, settings = SmallDevice(), samples(), config(batch_size=4, **changes)
    BatchPainter({"waves": net}, settings)(work)
    one_by_one(net, work, settings)
    assert sorted(net.taken) == [1, 2, 2, 4]
    forwards = [sample.painted["waves"].forward for sample in work]  # type: ignore[union-attr]
    assert forwards == ["batch"] * 6 + ["whole"] + ["batch"] * 2
    assert 1 < net.most_in_flight <= BATCHES_IN_FLIGHT


def test_every_style_paints_every_image():
    nets, work = {"waves": SmallDevice(), "dunes": SmallDevice(seed=1)}, samples()
    BatchPainter(nets, config(batch_size=3))(work)
    one_by_one(nets["waves"], work, config())
    for sample in work:
        first, second = (sample.painted[style].frames_HWC[0] for style in ("waves", "dunes"))  # type: ignore[union-attr]
        assert not np.array_equal(first, second)


def test_batches_that_fit_alone_are_waited_for_and_not_cut():
    net, work = SmallDevice(room_pixels=4 * 600), samples([(20, 30)] * 12)
    BatchPainter({"waves": net}, config(batch_size=4))(work)
    one_by_one(net, work, config())
    assert net.taken == [4, 4, 4]


def test_batches_that_do_not_fit_are_halved_and_later_ones_are_made_smaller():
    net = SmallDevice(room_pixels=3 * 600)
    painter = BatchPainter({"waves": net}, config(batch_size=8))
    work = samples([(20, 30)] * 8)
    painter(work)
    one_by_one(net, work, config())
    assert net.taken == [2, 2, 2, 2]
    refused, more = net.refused, samples([(20, 30)] * 5)
    painter(more)
    one_by_one(net, more, config())
    assert net.taken[4:] == [2, 2, 1]
    assert net.refused <= refused + 2, "tried beside others in flight, never larger alone"


def test_an_image_that_does_not_fit_even_alone_is_left_to_the_other_way():
    net, work = SmallDevice(room_pixels=700), samples([(20, 30), (40, 40), (20, 30)])
    BatchPainter({"waves": net}, config())(work)
    assert [bool(sample.painted) for sample in work] == [True, False, True]


def test_failed_and_moving_pictures_are_left_alone():
    work = samples([(20, 30)] * 3)
    work[0].failure = ImageError("Corrupt", "it is damaged")
    frame = Frame(image_HWC=drawn_image(20, 30))
    work[1].source = SourceImage(image_HWC=frame.image_HWC, frames=(frame,), source_format="gif", source_mode="P")
    BatchPainter({"waves": SmallDevice()}, config())(work)
    assert [bool(sample.painted) for sample in work] == [False, False, True]
