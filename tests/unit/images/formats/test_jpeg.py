from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.jpeg import read_pixels, read_structure
from stylemill.images.options import DecodeOptions
from stylemill.images.short_side import decode_short_side

OPTIONS = DecodeOptions()
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "subsampling": 0},
    "restart": {"restart_marker_rows": 2},
    "gray": {},
    "cmyk": {},
}
END = b"\xff\xd9"


def photo(seed: int = 0, size: int = 320) -> Image.Image:
    """Draw soft shapes with some noise: every block has details."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
    noise = rng.normal(0, 9, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encoded(kind: str, seed: int = 0, size: int = 320) -> bytes:
    mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
    buffer = io.BytesIO()
    photo(seed, size).convert(mode).save(buffer, "JPEG", quality=88, **KINDS[kind])
    return buffer.getvalue()


def data_start(data: bytes) -> int:
    """Return the offset of the compressed data of the first scan."""
    return read_structure(data).scans[0].start


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode(data, OPTIONS)
    return refused.value.error_type


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_pillow(kind: str) -> None:
    data = encoded(kind)
    expected = Image.open(io.BytesIO(data))
    stored = read_pixels(data, expected.mode)
    assert stored is not None
    samples = 255 - stored if kind == "cmyk" else stored
    assert (samples == np.asarray(expected)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
def test_a_cut_is_noticed_with_and_without_an_end_marker(kind: str, part: float) -> None:
    data = encoded(kind)
    start = data_start(data)
    kept = data[: start + int((len(data) - start) * part)]
    assert refusal(kept) == "Truncated"
    assert refusal(kept.rstrip(b"\xff") + END) in ("Truncated", "Corrupt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [512, 4096])
def test_a_block_of_zeros_is_noticed(kind: str, size: int) -> None:
    data = encoded(kind)
    start = data_start(data)
    for part in (0.1, 0.4, 0.7):
        at = start + int((len(data) - size - start) * part)
        assert refusal(data[:at] + bytes(size) + data[at + size :]) in ("Truncated", "Corrupt")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tail_of_zeros_is_noticed(kind: str) -> None:
    data = encoded(kind)
    for kept in (len(data) // 2, len(data) - 600, len(data) - 40):
        assert refusal(data[:kept] + bytes(len(data) - kept)) in ("Truncated", "Corrupt")


def test_most_changed_bytes_are_noticed() -> None:
    rng, noticed = random.Random(1), 0
    for seed in range(8):
        data = encoded("baseline", seed)
        for _ in range(5):
            changed = bytearray(data)
            for _ in range(5):
                changed[rng.randrange(data_start(data), len(data) - 2)] = rng.randrange(256)
            try:
                decode(bytes(changed), OPTIONS)
            except ImageError:
                noticed += 1
    assert noticed >= 20  # of 40; what is left has changed single blocks, or looks like noise


def test_missing_scans_of_a_progressive_file_are_noticed() -> None:
    data = encoded("progressive")
    scans = read_structure(data).scans
    assert len(scans) > 3
    assert refusal(data[: scans[2].end] + END) == "Truncated"


def test_an_end_marker_alone_may_be_missing() -> None:
    data = encoded("baseline")
    assert (decode(data[:-2], OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


@pytest.mark.parametrize(
    "behind",
    [b"\0" * 700, b"MotionPhoto_Data" + bytes(range(256)) * 9, b"\xff\xd8\xff\xe0 cut off preview", b"\xff\xd9"],
)
def test_what_follows_the_end_marker_is_harmless(behind: bytes) -> None:
    data = encoded("baseline")
    assert (decode(data + behind, OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


def segments(data: bytes) -> tuple[bytes, bytes]:
    """Split after the JFIF segment."""
    end = 4 + struct.unpack(">H", data[4:6])[0]
    return data[:end], data[end:]


@pytest.mark.parametrize(
    "extra",
    [b"\x00\x01\x02", b"\xff\x00" * 7, b"\xff" * 9, b"\xff\xe2\x00\x14ICC_PROFILE\x00\x07\x02ABCD", b"garbage" * 99],
)
def test_odd_bytes_between_segments_are_harmless(extra: bytes) -> None:
    data = encoded("baseline")
    head, rest = segments(data)
    assert (decode(head + extra + rest, OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


def test_an_unknown_version_of_jfif_is_harmless() -> None:
    data = encoded("baseline")
    odd = data.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1)
    assert odd != data
    assert (decode(odd, OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


def test_sequential_scan_parameters_of_zero_are_harmless() -> None:
    data = encoded("baseline")
    start = data_start(data)
    assert data[start - 3 : start] == b"\x00\x3f\x00"
    odd = data[: start - 3] + b"\x00\x00\x00" + data[start:]
    assert (decode(odd, OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


@pytest.mark.parametrize("num_zeros", [1, 6, 255, 300, 4000])
@pytest.mark.parametrize("end", [END, b""])
def test_zeros_that_fill_the_data_up_are_harmless(num_zeros: int, end: bytes) -> None:
    data = encoded("baseline")
    padded = data[:-2] + bytes(num_zeros) + end
    assert (decode(padded, OPTIONS).image_HWC == decode(data, OPTIONS).image_HWC).all()


@pytest.mark.parametrize("kind", ["baseline", "optimised", "progressive"])
@pytest.mark.parametrize("color", ["white", "black", (3, 200, 90)])
def test_pictures_of_one_colour_are_sound(kind: str, color: Any) -> None:
    buffer = io.BytesIO()
    page = Image.new("RGB", (900, 700), color)
    page.paste(photo(size=64), (300, 300))
    page.save(buffer, "JPEG", **KINDS[kind] | {"quality": 60, "optimize": True})
    assert decode(buffer.getvalue(), OPTIONS).image_HWC.shape == (700, 900, 3)


def test_a_subsampling_that_turbojpeg_does_not_know_is_read_by_pillow() -> None:
    data = encoded("gray")
    # One component with factors of 3 x 1 is sound: they have no effect on a picture of one component.
    at = data.index(b"\xff\xc0") + 4 + 6
    odd = data[: at + 1] + b"\x31" + data[at + 2 :]
    assert decode(odd, OPTIONS).image_HWC.shape == (320, 320, 3)


def test_damage_is_noticed_when_an_image_is_decoded_at_a_smaller_size() -> None:
    data = encoded("baseline", size=640)
    whole = decode_short_side(data, 160, OPTIONS)
    assert whole.image_HWC.shape == (160, 160, 3)
    half = data[: len(data) // 2] + END
    with pytest.raises(ImageError):
        decode_short_side(half, 160, OPTIONS)


def test_a_height_behind_the_pixels_is_named() -> None:
    data = encoded("baseline")
    at = data.index(b"\xff\xc0") + 5
    defined_later = b"\xff\xdc\x00\x04" + data[at : at + 2]
    odd = data[:at] + b"\0\0" + data[at + 2 : -2] + defined_later + END
    assert refusal(odd) == "UnsupportedFormat"


@pytest.mark.parametrize("transform", [0, 1, 2, 3, 255])
def test_an_unusual_adobe_transform_is_harmless(transform: int) -> None:
    data = encoded("baseline")
    rest = segments(data)[1]
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    odd = data[:2] + adobe + rest
    expected = np.asarray(Image.open(io.BytesIO(odd)))
    assert (decode(odd, OPTIONS).image_HWC == expected).all()


def test_arithmetic_coding_is_named() -> None:
    data = encoded("baseline")
    assert refusal(data.replace(b"\xff\xc0", b"\xff\xc9", 1)) == "UnsupportedFormat"


def test_many_scans_and_fill_bytes_take_no_long_time() -> None:
    data = encoded("baseline")
    sos = read_structure(data).needed[-1][0]
    assert refusal(data[:sos] + data[sos:-2] * 1001 + END) == "Corrupt"
    head, rest = segments(data)
    assert decode(head + b"\xff" * 3_000_000 + rest, OPTIONS).image_HWC.shape == (320, 320, 3)
