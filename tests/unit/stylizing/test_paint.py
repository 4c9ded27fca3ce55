"""Painting: the choice between whole images and tiles, the controls around the network, and batches in flight.

Batches run on a CPU here: what is painted together equals what is painted alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylemill.config import from_mapping
from stylemill.errors import ConfigError, ImageError, StorageError
from stylemill.images.source_image import Frame, SourceImage
from stylemill.nn.fast_net import FastNet, PendingBatch
from stylemill.painting.options import PaintOptions
from stylemill.painting.painter import Controls
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import BATCHES_IN_FLIGHT, BatchPainter, Painter
from stylemill.stylizing.preflight import PreparedRun, prepare
from stylemill.stylizing.sample import Painted, Sample
from tests.drawn import drawn_image, image_bytes, style_model

LARGE_PX = 688
"""Side of an image that does not fit 1 GiB whole in float32 at full width (676 px does not exceed it)."""
SMALL_PX = 256


@pytest.fixture
def paint(tmp_path: Path):
    """Return a function that paints one drawn image with a full-width model."""
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style_model(width=1.0)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image_bytes(20, 20))

    def one(side_px: int, **settings: str) -> Painted:
        source = SourceImage(image_HWC=drawn_image(side_px, side_px), source_format="png", source_mode="RGB")
        config = StylizeConfig(
            model=(str(tmp_path / "style.safetensors"),),
            input=str(tmp_path / "in"),
            out=str(tmp_path / f"out{len(list(tmp_path.iterdir()))}"),
            paint=PaintOptions(precision="float32", **settings),
        )
        run = prepare(config)
        painter = Painter(Storage(), run.layout, run.identity, config)
        (painted,) = painter(Sample(planned={"key": "a.jpg"}, source=source)).painted.values()
        assert isinstance(painted, Painted)
        return painted

    return one


def test_an_image_beyond_the_memory_is_painted_in_tiles_and_equals_the_whole(paint):
    whole, tiled = paint(LARGE_PX, max_memory="4GiB"), paint(LARGE_PX, max_memory="1GiB")
    assert (whole.forward, tiled.forward) == ("whole", "tiled")
    off = np.abs(tiled.frames_HWC[0].astype(int) - whole.frames_HWC[0])
    assert off.max() <= 1


def test_an_image_that_does_not_fit_the_gpu_is_painted_in_tiles(paint, monkeypatch: pytest.MonkeyPatch):
    whole = paint(SMALL_PX, max_memory="4GiB")

    def full(self: FastNet, image_HWC: np.ndarray) -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FastNet, "stylize", full)
    tiled = paint(SMALL_PX, max_memory="4GiB")
    assert (whole.forward, tiled.forward) == ("whole", "tiled")
    assert np.abs(tiled.frames_HWC[0].astype(int) - whole.frames_HWC[0]).max() <= 1


def test_a_model_that_was_exchanged_is_refused(run: PreparedRun, second_style_file: Path):
    storage = Storage()
    storage.write_bytes(run.layout.model_uri("waves"), second_style_file.read_bytes())
    with pytest.raises(ConfigError, match="waves"):
        Painter(storage, run.layout, run.identity, run.config)
    storage.delete(run.layout.model_uri("waves"))
    with pytest.raises((ConfigError, StorageError)):
        Painter(storage, run.layout, run.identity, run.config)


@pytest.mark.parametrize(("scale", "seen"), [(1.0, (60, 90)), (2.0, (30, 45)), (0.5, (120, 180))])
def test_texture_scale_changes_the_size_of_the_input_and_not_of_the_result(scale: float, seen: tuple[int, int]) -> None:
    controls = Controls(PaintOptions(texture_scale=scale))
    flat_HWC = np.full((60, 90, 3), 100, np.uint8)
    input_HWC = controls.scale_to_network(controls.limit_size(flat_HWC))
    assert input_HWC.shape[:2] == controls.network_size((60, 90)) == seen
    np.testing.assert_array_equal(controls.finish(flat_HWC, 255 - input_HWC), 255 - flat_HWC)


SIZES = [(20, 30), (24, 24), (20, 30), (20, 30), (24, 24), (20, 30), (16, 40), (20, 30), (20, 30)]


class SmallDevice(FastNet):
    """A network on a device with memory for ``room_pixels`` in flight; records the batches that it took."""

    def __init__(self, room_pixels: int = 10**9, seed: int = 0) -> None:
        super().__init__(style_model(seed=seed).build_network(), precision="float32")
        self.room_pixels = room_pixels
        self.taken: list[int] = []
        self.refused = 0
        self.most_in_flight = 0
        self._in_flight: list[int] = []

    def submit_batch(self, images_NHWC: np.ndarray) -> PendingBatch:
        pixels = int(np.prod(images_NHWC.shape[:3]))
        if sum(self._in_flight) + pixels > self.room_pixels:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")
        self.taken.append(len(images_NHWC))
        self._in_flight.append(pixels)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        return _Flying(super().submit_batch(images_NHWC), self._in_flight)


class _Flying:
    def __init__(self, flight: PendingBatch, in_flight: list[int]) -> None:
        self._flight, self._in_flight = flight, in_flight

    def result(self) -> np.ndarray:
        self._in_flight.pop(0)
        return self._flight.result()


def config(**changes: Any) -> StylizeConfig:
    return from_mapping(StylizeConfig, {"model": "m", "input": "i", "out": "o", **changes})


def samples(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Sample]:
    made = []
    for number, size in enumerate(sizes):
        source = SourceImage(image_HWC=drawn_image(*size, number), source_format="png", source_mode="RGB")
        made.append(Sample(planned={"key": f"{number}.png"}, source=source))
    return made


def one_by_one(net: FastNet, painted: Sequence[Sample], settings: StylizeConfig) -> None:
    controls = Controls(settings.paint)
    for sample in painted:
        assert sample.source is not None
        source_HWC = controls.limit_size(sample.source.image_HWC)
        wanted_HWC = controls.finish(source_HWC, net.stylize(controls.scale_to_network(source_HWC)))
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


def test_batches_that_fit_alone_wait_and_are_not_halved():
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
    assert net.refused <= refused + 2, "tried with others in flight, never larger alone"


def test_an_image_that_does_not_fit_even_alone_is_not_painted_in_batches():
    net, work = SmallDevice(room_pixels=700), samples([(20, 30), (40, 40), (20, 30)])
    BatchPainter({"waves": net}, config())(work)
    assert [bool(sample.painted) for sample in work] == [True, False, True]


def test_failed_samples_and_animations_are_not_painted_in_batches():
    work = samples([(20, 30)] * 3)
    work[0].failure = ImageError("Corrupt", "it is damaged")
    frame = Frame(image_HWC=drawn_image(20, 30))
    work[1].source = SourceImage(image_HWC=frame.image_HWC, frames=(frame,), source_format="gif", source_mode="P")
    BatchPainter({"waves": SmallDevice()}, config())(work)
    assert [bool(sample.painted) for sample in work] == [False, False, True]
