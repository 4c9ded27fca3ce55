from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from stylemill.demo.library import build_library, build_training_content

pytest.importorskip("skimage", reason="the photographs are in the wheel of scikit-image")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_library(tmp_path_factory.mktemp("demo") / "library")


def _valid_keys(library):
    return [key for key in library.keys if key not in library.damaged_keys]


def test_the_keys_are_the_files_in_the_folder(library):
    found = sorted(path.relative_to(library.root).as_posix() for path in library.root.rglob("*") if path.is_file())
    assert tuple(found) == library.keys
    assert 24 <= len(_valid_keys(library)) <= 30
    assert len(library.damaged_keys) == 4


def test_every_valid_picture_decodes_and_is_of_moderate_size(library):
    for key in _valid_keys(library):
        with Image.open(library.root / key) as image:
            image.load()
            assert min(image.size) >= 64
            assert max(image.size) <= 800


def test_no_damaged_file_decodes(library):
    for key in library.damaged_keys:
        with pytest.raises(OSError), Image.open(library.root / key) as image:
            image.load()


def test_the_library_is_mixed(library):
    images = {key: Image.open(library.root / key) for key in _valid_keys(library)}
    assert {image.format for image in images.values()} == {"JPEG", "PNG", "WEBP"}
    assert {image.mode for image in images.values()} >= {"RGB", "L", "RGBA"}
    assert len({image.size for image in images.values()}) > 20
    assert any(not key.isascii() for key in images)
    assert any(" " in key for key in images)


def test_the_rotated_photo_decodes_upright(library):
    stored = Image.open(library.root / "space/launch, held upright.jpg")
    assert stored.width > stored.height
    shown = ImageOps.exif_transpose(stored)
    assert shown.height > shown.width
    # The launch pad's lights are at the foot of the rocket.
    grey = shown.convert("L")
    foot = grey.crop((0, int(0.8 * grey.height), grey.width, grey.height)).resize((1, 1))
    top = grey.crop((0, 0, grey.width, int(0.2 * grey.height))).resize((1, 1))
    assert foot.getpixel((0, 0)) > top.getpixel((0, 0))


def test_building_again_writes_only_what_was_changed(library):
    before = {key: (library.root / key).stat().st_mtime_ns for key in library.keys}
    victim = "table/coffee.jpg"
    whole = (library.root / victim).read_bytes()
    (library.root / victim).write_bytes(whole[:100])
    again = build_library(library.root)
    assert again == library
    assert (library.root / victim).read_bytes() == whole
    del before[victim]
    assert before == {key: (library.root / key).stat().st_mtime_ns for key in before}


def test_training_content_is_square_varied_and_repeatable(tmp_path: Path):
    names = build_training_content(tmp_path / "content", side_px=96)
    assert len(names) >= 48
    assert len({(tmp_path / "content" / name).read_bytes() for name in names}) == len(names)
    for name in names:
        with Image.open(io.BytesIO((tmp_path / "content" / name).read_bytes())) as image:
            assert image.size == (96, 96)
            assert image.mode == "RGB"
    assert build_training_content(tmp_path / "content", side_px=96) == names


def test_training_crops_are_not_distorted():
    """A crop that is not square in pixels would train on stretched photos."""
    from stylemill.demo.library import _TRAINING_CROPS, _crop, _photo

    for photo, boxes in _TRAINING_CROPS.items():
        for box in boxes:
            width, height = _crop(_photo(photo), box).size
            assert 0.95 < width / height < 1.05, (photo, box, width, height)
