"""The painter's choice between the whole image and tiles, and what tiles make of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stylemill.images.source_image import SourceImage
from stylemill.nn.fast_net import FastNet
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import byte_settings
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.sample import Painted, Sample
from tests.drawn import drawn_image, image_bytes, style_model

SIDE_PX = 720
"""More than fits whole into 1 GiB in float32 at full width."""


@pytest.fixture
def paint(tmp_path: Path):
    """Return a function that paints one drawn image of SIDE_PX under a config."""
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style_model(width=1.0)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image_bytes(20, 20))
    source = SourceImage(image_HWC=drawn_image(SIDE_PX, SIDE_PX), source_format="png", source_mode="RGB")

    def one(**settings: str) -> Painted:
        config = StylizeConfig(
            model=(str(tmp_path / "style.safetensors"),),
            input=str(tmp_path / "in"),
            out=str(tmp_path / f"out{len(list(tmp_path.iterdir()))}"),
            precision="float32",
            **settings,
        )
        run = prepare(config)
        painter = Painter(Storage(), run.layout, run.identity.styles, config)
        (painted,) = painter(Sample(planned={"key": "a.jpg"}, source=source)).painted.values()
        assert isinstance(painted, Painted)
        return painted

    return one


def test_an_image_beyond_the_memory_is_painted_in_tiles_and_equals_the_whole(paint):
    whole, tiled, quick = (
        paint(max_memory="4GiB"),
        paint(max_memory="1GiB"),
        paint(max_memory="1GiB", tiles="thumbnail"),
    )
    assert (whole.forward, tiled.forward, quick.forward) == ("whole", "tiled", "tiled")
    off = np.abs(tiled.frames_HWC[0].astype(int) - whole.frames_HWC[0])
    assert off.max() <= 1
    # 720 px are below the thumbnail's 1024: it is the image itself, and so are its statistics.
    assert np.abs(quick.frames_HWC[0].astype(int) - whole.frames_HWC[0]).max() <= 1


def test_an_image_that_does_not_fit_the_gpu_is_painted_in_tiles(paint, monkeypatch: pytest.MonkeyPatch):
    whole = paint(max_memory="4GiB")

    def full(self: FastNet, image_HWC: np.ndarray) -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FastNet, "stylize", full)
    tiled = paint(max_memory="4GiB")
    assert (whole.forward, tiled.forward) == ("whole", "tiled")
    assert np.abs(tiled.frames_HWC[0].astype(int) - whole.frames_HWC[0]).max() <= 1


def test_how_tiles_are_painted_is_part_of_the_fingerprint():
    settings = [
        byte_settings(StylizeConfig(model=("m",), input="i", out="o", tiles=tiles)) for tiles in ("exact", "thumbnail")
    ]
    assert settings[0] != settings[1]
