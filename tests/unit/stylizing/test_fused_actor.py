"""Reading ahead: in order, and never more pixels at a time than the bound allows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import closing

import numpy as np
import pytest

from stylemill.errors import StorageError
from stylemill.images.source_image import SourceImage
from stylemill.stylizing import fused_actor
from stylemill.stylizing.fused_actor import ReadAhead, pixel_bytes
from stylemill.stylizing.read import Fetched
from stylemill.stylizing.sample import Sample

SIDE_PX = 20
PIXEL_BYTES = 3 * SIDE_PX**2


class _DrawingReader:
    """Draws what it is asked for, and keeps count of the samples that are decoded and not yet painted."""

    def __init__(self, broken_key: str = "") -> None:
        self.num_alive = 0
        self.most_alive = 0
        self._broken_key = broken_key
        self._lock = threading.Lock()

    def fetch(self, planned: dict) -> Fetched:
        if planned["key"] == self._broken_key:
            raise StorageError("the store is away")
        time.sleep(0.002 * (planned["number"] % 3))  # later ones may arrive earlier
        return Fetched(Sample(planned=planned), b"")

    def decode(self, fetched: Fetched) -> Sample:
        sample = fetched.sample
        side_px = sample.planned["side_px"]
        image_HWC = np.zeros((side_px, side_px, 3), np.uint8)
        sample.source = SourceImage(image_HWC=image_HWC, source_format="png", source_mode="RGB")
        with self._lock:
            self.num_alive += 1
            self.most_alive = max(self.most_alive, self.num_alive)
        return sample

    def painted(self) -> None:
        with self._lock:
            self.num_alive -= 1


def _rows(num: int, size_bytes: int = 10) -> list[dict]:
    rows = range(num)
    return [{"key": f"{i:03d}", "number": i, "size_bytes": size_bytes, "side_px": SIDE_PX} for i in rows]


def _keys(reader: _DrawingReader, rows: list[dict]) -> list[str]:
    keys = []
    with closing(ReadAhead(reader).samples(rows)) as samples:
        for sample in samples:
            time.sleep(0.005)
            keys.append(sample.key)
            reader.painted()
    return keys


def test_order_is_kept_and_some_wait_decoded():
    reader = _DrawingReader()
    assert _keys(reader, _rows(20)) == [f"{i:03d}" for i in range(20)]
    assert 1 < reader.most_alive <= fused_actor.READ_AHEAD + 1


def test_while_a_large_picture_is_held_no_other_is_decoded(monkeypatch):
    monkeypatch.setattr(fused_actor, "HELD_PIXEL_BYTES", PIXEL_BYTES - 1)
    reader = _DrawingReader()
    assert len(_keys(reader, _rows(12))) == 12
    assert reader.most_alive == 1


def test_the_bound_is_on_pixels_not_on_pictures(monkeypatch):
    monkeypatch.setattr(fused_actor, "HELD_PIXEL_BYTES", 2 * PIXEL_BYTES - 1)
    reader = _DrawingReader()
    _keys(reader, _rows(12))
    assert reader.most_alive == 2


def test_large_files_are_fetched_one_by_one():
    reader = _DrawingReader()
    _keys(reader, _rows(6, size_bytes=fused_actor.READ_AHEAD_BYTES))
    assert reader.most_alive == 1


def test_sources_of_unknown_size_count_as_what_they_turn_out_to_be():
    """Lists tell no sizes: what was fetched counts by its bytes, what was not by a supposed size."""
    there: Future[Fetched] = Future()
    there.set_result(Fetched(Sample(planned={}), bytes(fused_actor.READ_AHEAD_BYTES)))
    assert fused_actor._size_bytes(0, there) == fused_actor.READ_AHEAD_BYTES
    assert fused_actor._size_bytes(0, Future()) == fused_actor.UNKNOWN_BYTES
    assert not fused_actor._may_read(0, [fused_actor.READ_AHEAD_BYTES])
    assert fused_actor._may_read(0, [fused_actor.UNKNOWN_BYTES])
    assert fused_actor._may_read(0, [])


def test_a_failing_store_ends_the_reading_and_nothing_hangs():
    with pytest.raises(StorageError, match="away"):
        _keys(_DrawingReader(broken_key="003"), _rows(8))


def test_stopping_in_the_middle_leaves_room_for_the_next_block(monkeypatch):
    monkeypatch.setattr(fused_actor, "HELD_PIXEL_BYTES", PIXEL_BYTES - 1)
    ahead = ReadAhead(_DrawingReader())
    for _ in range(3):
        with closing(ahead.samples(_rows(8))) as samples:
            assert next(samples).key == "000"
    with closing(ahead.samples(_rows(3))) as samples:
        assert [sample.key for sample in samples] == ["000", "001", "002"]


def test_all_pixels_of_a_sample_count():
    sample = _DrawingReader().decode(Fetched(Sample(planned=_rows(1)[0]), b""))
    assert pixel_bytes(sample) == PIXEL_BYTES
    assert pixel_bytes(Sample(planned={})) == 0
