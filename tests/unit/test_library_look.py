"""One look for a library: drawing the sample, and models that paint equal things alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from stylemill.errors import ConfigError
from stylemill.images.options import DecodeOptions
from stylemill.library_look import WINDOW_PX, draw_photos, with_look
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage
from stylemill.style_model import from_bytes, to_bytes
from tests.drawn import drawn_image, image_bytes, style_model

CALM = DecodeOptions(isolate_decoding=False)


def test_photographs_are_drawn_by_their_keys_and_what_is_none_is_left_out(tmp_path: Path):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(24, 30, number))
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff no more")
    (tmp_path / "note.txt").write_text("words")
    photos = draw_photos(Storage(), str(tmp_path), PaintOptions(), CALM, num=5)
    again = draw_photos(Storage(), str(tmp_path), PaintOptions(), CALM, num=5)
    assert len(photos) == 5 and all(np.array_equal(one, other) for one, other in zip(photos, again, strict=True))
    assert len(draw_photos(Storage(), str(tmp_path), PaintOptions(), CALM, num=50)) == 12


def test_photographs_are_taken_at_the_size_at_which_they_are_painted(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(image_bytes(900, 600))
    for options, size in (
        (PaintOptions(), (WINDOW_PX, WINDOW_PX)),
        (PaintOptions(max_size_px=300), (300, 200)),
        (PaintOptions(max_size_px=300, texture_scale=2.0), (150, 100)),
    ):
        (photo_HWC,) = draw_photos(Storage(), str(tmp_path), options, CALM)
        assert photo_HWC.shape[:2] == size and photo_HWC.base is None  # the whole photograph is not kept


def test_a_library_without_an_image_is_refused(tmp_path: Path):
    (tmp_path / "note.txt").write_text("words")
    with pytest.raises(ConfigError, match="has no image from which a look can be taken"):
        draw_photos(Storage(), str(tmp_path), PaintOptions(), CALM)


def test_a_look_is_a_style_model_of_its_own():
    photos = [drawn_image(40, 60, seed) for seed in range(3)]
    model = from_bytes(to_bytes(style_model()), source="m")
    look = with_look(model, photos)
    assert look.architecture.norm == "batch" and look.name == model.name
    assert look.version != model.version and look.sha256 != model.sha256
    assert from_bytes(to_bytes(look), source="look").sha256 == look.sha256 == with_look(model, photos).sha256
    assert hashlib.sha256(to_bytes(look)).hexdigest() == look.sha256
    assert look.metadata["look"] == {"model_sha256": model.sha256}
    with pytest.raises(ConfigError, match="has batch norms"):
        with_look(look, photos)


def test_the_same_thing_is_painted_alike_whatever_stands_beside_it():
    """Two crops of one picture: with instance norms the rest of a crop changes what both have in common."""
    picture_HWC = drawn_image(64, 192, seed=4)
    picture_HWC[:, 128:] //= 4
    crops = picture_HWC[:, :128], picture_HWC[:, 64:]
    model = from_bytes(to_bytes(style_model(width=0.25)), source="m")
    differences = []
    for one in (model, with_look(model, [picture_HWC, drawn_image(64, 64, seed=5)])):
        left, right = (one.paint(crop).astype(float) for crop in crops)
        differences.append(np.abs(left[16:-16, 80:112] - right[16:-16, 16:48]).mean())
    assert differences[1] < 0.25 * differences[0]
