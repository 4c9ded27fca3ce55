"""JPEGs that the device decodes; here the device is the CPU, with torchvision's decoder."""

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


def test_both_decoders_give_the_same_samples(tmp_path: Path):
    isolated, on_device = read(tmp_path, FILES), read(tmp_path, FILES, leave_plain_jpegs=True)
    decoder()(on_device)
    assert list(map(outcome, on_device)) == list(map(outcome, isolated))
    for device_sample, isolated_sample in zip(on_device, isolated, strict=True):
        assert device_sample.jpeg is None
        if isolated_sample.source is not None:
            assert (
                device_sample.source is not None and device_sample.decode_ms is not None and device_sample.decode_ms > 0
            )
            # Two builds of libjpeg, which round alike to within a level or two.
            assert np.abs(device_sample.source.image_HWC.astype(int) - isolated_sample.source.image_HWC).max() <= 2


def test_what_the_device_cannot_decode_goes_to_the_isolated_decoder(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = {"a.jpg": FILES["a.jpg"], "bad.jpg": damaged(), "b.jpg": FILES["b.jpg"], "worse.jpg": damaged()}
    isolated, on_device = read(tmp_path, files), read(tmp_path, files, leave_plain_jpegs=True)
    assert all(sample.jpeg for sample in on_device)
    with caplog.at_level(logging.WARNING):
        decoder()(on_device)
    assert [sample.failure is not None for sample in on_device] == [False, True, False, True]
    assert list(map(outcome, on_device)) == list(map(outcome, isolated))
    assert len(caplog.records) == 1, "logged once, not for each image"


def test_a_device_without_a_decoder_leaves_all_to_the_isolated_one(tmp_path: Path):
    on_device = read(tmp_path, FILES, leave_plain_jpegs=True)
    DeviceJpegDecoder("meta", Storage(), OPTIONS)(on_device)
    assert [sample.source is not None for sample in on_device] == [True, True, True, False, False]
