from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import ImageError, NotAnImage, TooManyFailures
from stylemill.images.options import DecodeOptions
from stylemill.images.short_side import decode_short_side
from stylemill.process import process_tree
from stylemill.storage import Storage
from stylemill.training.data import DECODING_THREADS, Batches, Content, ContentImage, content_from_json, list_content
from stylemill.training.layout import LeftOutImage, load_left_out, num_failed, save_left_out
from stylemill.training.schedule import SampleIndex, Sampler
from tests.drawn import image_bytes


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


def test_crops_are_at_the_sample_s_position(folder):
    content = open_content(folder)
    whole = decode_short_side((folder / "2.jpg").read_bytes(), 48, DecodeOptions()).image_HWC
    assert np.array_equal(crop(content, 2), whole[:32, :32])
    assert np.array_equal(crop(content, 2, (0.999999, 0.999999)), whole[-32:, -32:])


def decoding_children() -> set[int]:
    found = process_tree(os.getpid())[1:]
    return {child.pid for child in found if "stylemill.images.isolation.child" in child.cmdline()}


def test_content_is_decoded_in_child_processes_that_end_with_it(folder, monkeypatch):
    for name in ("decode", "decode_short_side"):
        monkeypatch.setattr(f"stylemill.images.isolation.client.{name}", None)  # nothing is decoded here
    before = decoding_children()
    content = open_content(folder)
    assert crop(content, 0).shape == (32, 32, 3)
    assert len(decoding_children() - before) == DECODING_THREADS
    content.close()
    assert decoding_children() <= before


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
        return [str(Path(image.uri).relative_to(folder)) for image in found]

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


def test_a_choice_that_is_restored_holds_although_its_cause_has_passed(folder):
    hidden = (folder / "1.jpg").read_bytes()
    first = open_content(folder)
    (folder / "1.jpg").unlink()
    expected = crop(first, 1)
    assert np.array_equal(expected, crop(first, 2))
    (folder / "1.jpg").write_bytes(hidden)
    again, fresh = open_content(folder), open_content(folder)
    again.restore(first.left_out.values())
    assert np.array_equal(crop(again, 1), expected)
    assert not np.array_equal(crop(fresh, 1), expected)
    fresh.restore([])
    assert fresh.left_out == {}


def test_an_image_that_was_replaced_since_the_listing_is_left_out(folder):
    content = open_content(folder)
    os.utime(folder / "0.jpg", (1, 1))  # a copy on another machine
    (folder / "1.jpg").write_bytes(image_bytes(64, 100, 9))
    crop(content, 0)
    assert np.array_equal(crop(content, 1), crop(content, 2))
    assert {Path(uri).name: entry.error_type for uri, entry in content.left_out.items()} == {"1.jpg": "SourceChanged"}


def test_an_object_that_was_replaced_by_one_of_the_same_size_is_left_out():
    storage, data = Storage(), image_bytes(64, 64, 1)
    for key in ("a.jpg", "b.jpg"):
        storage.write_bytes(f"memory://content/{key}", data)
    listed = [ContentImage("memory://content/a.jpg", "an etag"), ContentImage("memory://content/b.jpg", "")]
    content = Content(
        storage, listed, crop_px=32, short_side_px=48, cache_bytes=0, max_failed_fraction=0.5
    )  # fmt: skip
    crop(content, 0)
    assert [entry.error_type for entry in content.left_out.values()] == ["SourceChanged"]


def test_listings_of_early_versions_have_no_etags():
    assert content_from_json(b'["/in/a.jpg"]') == (ContentImage("/in/a.jpg", ""),)
    assert content_from_json(b'[["/in/a.jpg", "e"]]') == (ContentImage("/in/a.jpg", "e"),)
