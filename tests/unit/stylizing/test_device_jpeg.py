"""JPEGs on their way to the device that decodes them; here that device is the CPU, with torchvision's decoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylemill.images.options import DecodeOptions
from stylemill.storage import Storage
from stylemill.stylizing.gpu_actors import DeviceJpegDecoder
from stylemill.stylizing.read import Reader
from stylemill.stylizing.sample import Sample
from tests.drawn import image_bytes

OPTIONS = DecodeOptions(isolate_decoding=False)


def damaged() -> bytes:
    """A JPEG with a sound header and a sound end whose quantization tables are gone."""
    data = image_bytes(40, 56, 3)
    while (at := data.find(b"\xff\xdb")) >= 0:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data


FILES = {
    "a.jpg": image_bytes(40, 56, 1),
    "b.jpg": image_bytes(30, 20, 2),
    "c.png": image_bytes(10, 12, 3, "PNG"),
    "d.txt": b"words " * 50,
    "e.jpg": image_bytes(50, 50, 4)[:400],
}


def read(folder: Path, files: dict[str, bytes], **options: Any) -> list[Sample]:
    reader = Reader(Storage(), OPTIONS, **options)
    samples = []
    for key, data in files.items():
        (folder / key).write_bytes(data)
        planned = {"key": key, "uri": str(folder / key), "size_bytes": len(data), "problem_type": None}
        samples.append(reader(planned))
    return samples


def decoder() -> DeviceJpegDecoder:
    return DeviceJpegDecoder("cpu", Storage(), OPTIONS)


def outcome(sample: Sample) -> tuple[Any, ...]:
    failure = sample.failure and (sample.failure.error_type, sample.failure.message)
    return (sample.key, failure, sample.source_format, sample.width_px, sample.height_px, sample.source_sha256)


def test_the_reader_leaves_plain_jpegs_and_nothing_else(tmp_path: Path):
    samples = read(tmp_path, FILES, leave_plain_jpegs=True)
    assert [sample.key for sample in samples if sample.jpeg] == ["a.jpg", "b.jpg"]
    assert all((sample.source is None) is (sample.failure is not None) for sample in samples if not sample.jpeg)


def test_the_way_of_decoding_changes_nothing(tmp_path: Path):
    carefully, quickly = read(tmp_path, FILES), read(tmp_path, FILES, leave_plain_jpegs=True)
    decoder()(quickly)
    assert list(map(outcome, quickly)) == list(map(outcome, carefully))
    for quick, careful in zip(quickly, carefully, strict=True):
        assert quick.jpeg is None
        if careful.source is not None:
            assert quick.source is not None and quick.decode_ms is not None and quick.decode_ms > 0
            # Two builds of libjpeg, which round alike to within a level or two.
            assert np.abs(quick.source.image_HWC.astype(int) - careful.source.image_HWC).max() <= 2


def test_what_the_device_refuses_is_judged_by_the_careful_decoder(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = {"a.jpg": FILES["a.jpg"], "bad.jpg": damaged(), "b.jpg": FILES["b.jpg"], "worse.jpg": damaged()}
    carefully, quickly = read(tmp_path, files), read(tmp_path, files, leave_plain_jpegs=True)
    assert all(sample.jpeg for sample in quickly)
    with caplog.at_level(logging.WARNING):
        decoder()(quickly)
    assert [sample.failure is not None for sample in quickly] == [False, True, False, True]
    assert list(map(outcome, quickly)) == list(map(outcome, carefully))
    assert len(caplog.records) == 1, "said once, not for each image"


def test_a_device_without_a_decoder_leaves_all_to_the_careful_one(tmp_path: Path):
    quickly = read(tmp_path, FILES, leave_plain_jpegs=True)
    DeviceJpegDecoder("meta", Storage(), OPTIONS)(quickly)
    assert [sample.source is not None for sample in quickly] == [True, True, True, False, False]
