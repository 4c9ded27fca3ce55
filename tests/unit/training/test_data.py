from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylemill.errors import ImageError, NotAnImage, TooManyFailures
from stylemill.images.decode import decode
from stylemill.images.formats.alpha16 import write_png16
from stylemill.images.options import DecodeOptions
from stylemill.storage import Storage
from stylemill.training.data import Batches, Content, list_content, load_short_side
from stylemill.training.layout import LeftOutImage, load_left_out, num_failed, save_left_out
from stylemill.training.schedule import SampleIndex, Sampler
from tests.drawn import image_bytes, wide_gamut_profile


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(60 + 10 * number, 100, number))
    return tmp_path


def open_content(folder, max_failed_fraction: float = 0.5, cache_bytes: int = 10**7, on_left_out=None) -> Content:
    uris = list_content(Storage(), [str(folder)])
    return Content(
        Storage(), uris, crop_px=32, short_side_px=48, cache_bytes=cache_bytes, max_failed_fraction=max_failed_fraction,
        on_left_out=on_left_out,
    )  # fmt: skip


def crop(content: Content, image: int, position=(0.0, 0.0)) -> np.ndarray:
    return content.crop(SampleIndex(image, position))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size_px", [(400, 300), (300, 400), (20, 31), (48, 48)])
def test_the_shorter_side_gets_the_wanted_length(format, size_px):
    image_HWC = load_short_side(image_bytes(*size_px, format=format), 48)
    assert min(image_HWC.shape[:2]) == 48
    assert max(image_HWC.shape[:2]) == pytest.approx(48 * max(size_px) / min(size_px), abs=1)
    assert image_HWC.dtype == np.uint8


def test_scaled_decoding_gives_nearly_the_same_picture():
    y, x = np.mgrid[0:800, 0:1000]
    smooth = np.stack([128 + 100 * np.sin(x / 90), 128 + 100 * np.cos(y / 70), (x + y) / 8], axis=2).astype(np.uint8)
    buffers = io.BytesIO(), io.BytesIO()
    Image.fromarray(smooth).save(buffers[0], "JPEG", quality=95)
    Image.fromarray(smooth).save(buffers[1], "PNG")
    scaled, plain = (load_short_side(buffer.getvalue(), 96).astype(int) for buffer in buffers)
    assert np.abs(scaled - plain).mean() < 3


def test_orientation_is_applied():
    image = Image.open(io.BytesIO(image_bytes(60, 100)))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert load_short_side(buffer.getvalue(), 60).shape == (100, 60, 3)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size_px", [(2, 4000), (4000, 2)])
def test_a_very_long_image_is_cropped_to_its_middle(size_px):
    """Uncropped, it would take a gigabyte at 384 px."""
    line_HWC = np.full((*size_px, 3), 255, np.uint8)
    middle = np.s_[:, 1990:2010] if size_px[0] == 2 else np.s_[1990:2010]
    line_HWC[middle] = (200, 0, 0)
    image_HWC = load_short_side(encoded(Image.fromarray(line_HWC), "PNG"), 48)
    assert sorted(image_HWC.shape[:2]) == [48, 8 * 48]
    assert abs(image_HWC.astype(int) - (200, 0, 0)).max() <= 1


def test_transparent_pixels_become_white():
    see_through = Image.new("RGBA", (60, 60), (10, 20, 30, 0))
    see_through.paste((200, 100, 0, 128), (0, 0, 60, 30))
    image_HWC = load_short_side(encoded(see_through, "PNG"), 60).astype(int)
    assert abs(image_HWC[:25] - (227, 177, 127)).max() <= 1
    assert (image_HWC[35:] == 255).all()
    grey = Image.new("LA", (60, 60), (0, 0))
    assert (load_short_side(encoded(grey, "PNG"), 60) == 255).all()


def test_sixteen_bits_are_scaled():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    image_HWC = load_short_side(encoded(Image.fromarray(np.tile(ramp, (64, 1))), "PNG"), 64).astype(int)
    assert abs(image_HWC[0, :, 0] - ramp / 257).max() <= 1


def test_colours_are_those_of_the_bulk_flow_s_decoder():
    """Other primaries, and inks that are not Adobe's."""
    for image, options in [
        (Image.new("RGB", (64, 64), (200, 60, 20)), {"icc_profile": wide_gamut_profile(), "quality": 100}),
        (Image.new("CMYK", (64, 64), (200, 30, 10, 5)), {"quality": 100}),
    ]:
        data = encoded(image, "JPEG", **options)
        wanted_HWC = decode(data, DecodeOptions()).image_HWC.astype(int)
        assert abs(load_short_side(data, 64).astype(int) - wanted_HWC).max() <= 1


@pytest.mark.parametrize("data", [b"", b"text", image_bytes(200, 200)[:500], image_bytes(50, 50, format="PNG")[:-60]])
def test_undecodable_data_raises_an_image_error(data):
    with pytest.raises(ImageError):
        load_short_side(data, 48)


def test_crops_are_at_the_sample_s_position(folder):
    content = open_content(folder)
    whole = load_short_side((folder / "2.jpg").read_bytes(), 48)
    assert np.array_equal(crop(content, 2), whole[:32, :32])
    assert np.array_equal(crop(content, 2, (0.999999, 0.999999)), whole[-32:, -32:])


def test_crops_do_not_depend_on_the_cache(folder):
    with_cache, without = open_content(folder), open_content(folder, cache_bytes=0)
    for _ in range(2):
        for image in range(4):
            assert np.array_equal(crop(with_cache, image, (0.5, 0.5)), crop(without, image, (0.5, 0.5)))


def test_a_broken_image_is_always_replaced_by_the_same_one_and_listed(folder):
    (folder / "1.jpg").write_bytes(image_bytes(60, 60)[:300])
    first, second = open_content(folder), open_content(folder)
    crop(first, 3)
    assert np.array_equal(crop(first, 1), crop(second, 2))
    assert [(uri.rsplit("/", 1)[1], entry.status) for uri, entry in first.left_out.items()] == [("1.jpg", "failed")]


def test_too_many_broken_images_are_an_error_that_names_one(folder):
    (folder / "1.jpg").write_bytes(image_bytes(60, 60)[:300])
    with pytest.raises(TooManyFailures, match=r"1 of 4 .*1\.jpg"):
        crop(open_content(folder, max_failed_fraction=0.2), 1)


def test_files_that_are_not_images_do_not_count_as_broken(folder):
    (folder / "1.txt").write_text("a note " * 50)
    content = open_content(folder, max_failed_fraction=0.0)
    for image in range(5):
        crop(content, image)
    assert [entry.status for entry in content.left_out.values()] == ["skipped"]


def test_broken_images_of_other_workers_count_too(folder):
    (folder / "1.jpg").write_bytes(image_bytes(60, 60)[:300])
    with pytest.raises(TooManyFailures, match=r"3 of 4 .*1\.jpg"):
        crop(open_content(folder, on_left_out=lambda entry: 3), 1)


def test_the_left_out_list_reads_back_as_written(tmp_path):
    uri = str(tmp_path / "left_out.json")
    assert load_left_out(Storage(), uri) == []
    broken = LeftOutImage.from_error("b.jpg", ImageError("Corrupt", "cut off"))
    note = LeftOutImage.from_error("a.txt", NotAnImage("Text", "words"))
    save_left_out(Storage(), uri, [broken, note])
    assert load_left_out(Storage(), uri) == [note, broken]
    assert num_failed([note, broken]) == 1
    (tmp_path / "left_out.json").write_bytes(b"{")
    assert load_left_out(Storage(), uri) == []


def test_content_comes_from_prefixes_globs_files_and_lists(folder):
    (folder / "below").mkdir()
    (folder / "below" / "a photo.jpg").write_bytes(image_bytes(60, 60, 9))
    listed = [str(folder / "below" / "a photo.jpg"), str(folder / "2.jpg")]
    pq.write_table(pa.table({"uri": listed}), folder / "list.parquet")

    def names(*locations: str) -> list[str]:
        found = list_content(Storage(), [str(folder / location) for location in locations])
        return [str(Path(uri).relative_to(folder)) for uri in found]

    assert names("[0-1].jpg") == ["0.jpg", "1.jpg"]
    assert names("**/*.jpg") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "below/a photo.jpg"]
    assert names("below") == ["below/a photo.jpg"]
    assert sorted(names("list.parquet")) == ["2.jpg", "below/a photo.jpg"]
    assert names("3.jpg", "below", "1.jpg") == ["3.jpg", "below/a photo.jpg", "1.jpg"]


def test_batches_are_in_order_and_can_start_at_any_step(folder):
    def read(first: int, end: int) -> list[np.ndarray]:
        sampler = Sampler(4, seed=1)
        batches = Batches(open_content(folder), sampler, lambda step: sampler.share(step, 3, 0, 1))
        found = list(batches.steps(first, end))
        batches.close()
        return found

    whole = read(0, 7)
    assert all(batch.shape == (3, 32, 32, 3) for batch in whole)
    assert all(np.array_equal(left, right) for left, right in zip(whole[4:], read(4, 7), strict=True))


def test_pixels_with_16_bits_of_transparency_become_white():
    half_HW = np.full((40, 50), 0x80FF, np.uint16)  # not a value that 8 bits can hold
    data = write_png16(np.zeros((40, 50, 3), np.uint8), half_HW, [])
    assert (load_short_side(data, 40) == 255 - 0x80).all()
