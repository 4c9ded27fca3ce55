from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.decode import decode
from stylemill.images.encode import encode
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions, EncodeOptions

from .drawn import animation, every_file, picture, save

OPTIONS = DecodeOptions(max_pixels=4_000_000)
FILES = every_file()


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(DecodeOptions(max_pixels=4_000_000, animation="all", decode_timeout_s=30)) as decoder:
        yield decoder


def check_outcome(decoder: IsolatedDecoder, data: bytes) -> None:
    """Check that a file is decoded, or refused with a type and a specific message."""
    try:
        source = decoder.decode(data)
    except ImageError as refused:
        assert refused.error_type.isidentifier()
        assert refused.error_type not in ("DecoderCrash", "DecodeTimeout")
        assert len(refused.message) > 15
        assert refused.message.isprintable()
    else:
        assert source.image_HWC.shape == (source.height_px, source.width_px, 3)
        assert source.alpha_HW is None or source.alpha_HW.shape == source.image_HWC.shape[:2]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_cut_at_any_quarter_is_refused_or_whole(isolated: IsolatedDecoder, name: str) -> None:
    for quarter in (1, 2, 3):
        check_outcome(isolated, FILES[name][: len(FILES[name]) * quarter // 4])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_a_photo_that_ends_too_early_is_truncated(image_format: str) -> None:
    rng = np.random.default_rng(0)
    data = save(Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)), image_format)
    for quarter in (2, 3):
        with pytest.raises(ImageError) as refused:
            decode(data[: len(data) * quarter // 4], OPTIONS)
        assert refused.value.error_type == "Truncated"


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_and_lost_bytes_fail_one_image_only(isolated: IsolatedDecoder, data: st.DataObject) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "set", "number", "delete", "repeat"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                content[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
            case "number":
                extreme = data.draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
                content[at : at + 4] = extreme.to_bytes(4, data.draw(st.sampled_from(["big", "little"])))
            case "delete":
                del content[at : at + data.draw(st.integers(1, 20))]
            case "repeat":
                content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
        if not content:
            return
    check_outcome(isolated, bytes(content))


@given(st.binary(max_size=300), st.sampled_from(sorted(FILES)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_behind_a_good_beginning(isolated: IsolatedDecoder, noise: bytes, name: str) -> None:
    check_outcome(isolated, FILES[name][:24] + noise)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["RGB", "L", "RGBA", "1", "P"]))
@settings(max_examples=60, deadline=None)
def test_any_size_goes_through(width: int, height: int, mode: str) -> None:
    image = picture(mode).resize((width, height))
    for image_format in ("PNG", "TIFF"):
        source = decode(save(image, image_format), OPTIONS)
        encoded = encode(source.image_HWC, source, EncodeOptions())
        np.testing.assert_array_equal(decode(encoded.data, OPTIONS).image_HWC, source.image_HWC)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def with_size(image_format: str, at: int, layout: str, side: int) -> bytes:
    """A small real file whose header claims to be large."""
    data = bytearray(save(picture("L"), image_format))
    if image_format == "JPEG":
        at += data.index(b"\xff\xc0")
    elif image_format == "GIF":
        struct.pack_into(layout, data, data.index(b",\0\0\0\0") + 5, side, side)
    struct.pack_into(layout, data, at, side, side)
    return bytes(data)


BOMBS = {
    "png": png_header(100_000, 100_000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")),
    "gif": with_size("GIF", 6, "<HH", 65_535),
    "bmp": with_size("BMP", 18, "<ii", 60_000),
    "jpeg": with_size("JPEG", 5, ">HH", 65_000),
    "ppm": b"P6 99999 99999 255\n" + bytes(100),
    "qoi": b"qoif" + struct.pack(">IIBB", 2**31, 2**31, 4, 0) + bytes(20),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs_are_stopped_by_their_header(name: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode(BOMBS[name], DecodeOptions())
    assert refused.value.error_type == "TooManyPixels"
    assert "max_pixels = 200,000,000" in refused.value.message


def test_a_bomb_inside_an_icon_is_stopped(isolated: IsolatedDecoder) -> None:
    inner = io.BytesIO()
    Image.new("L", (4000, 4000)).save(inner, "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner.getvalue()), 22)
    with pytest.raises(ImageError) as refused:
        isolated.decode(b"\0\0\1\0\1\0" + entry + inner.getvalue())
    assert refused.value.error_type == "TooManyPixels"


def test_the_limit_itself_is_allowed() -> None:
    data = save(picture("RGB"), "PNG")
    assert decode(data, DecodeOptions(max_pixels=23 * 14)).width_px == 23
    with pytest.raises(ImageError, match="23 x 14 = 322 px are more than max_pixels = 321"):
        decode(data, DecodeOptions(max_pixels=321))


def test_too_many_bytes() -> None:
    with pytest.raises(ImageError, match="more than max_source_bytes = 50") as refused:
        decode(save(picture("RGB"), "PNG"), DecodeOptions(max_source_bytes=50))
    assert refused.value.error_type == "TooLarge"


def test_an_empty_file_failed_and_was_not_skipped() -> None:
    with pytest.raises(ImageError, match="0 bytes") as refused:
        decode(b"", OPTIONS)
    assert refused.value.error_type == "EmptyFile"
    assert not isinstance(refused.value, NotAnImage)


def test_a_directory_that_points_at_itself_ends() -> None:
    data = bytearray(save(picture("L"), "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * entries :][:4] = first.to_bytes(4, "little")
    data[first + 2 + 12 * entries : first + 6 + 12 * entries] = first.to_bytes(4, "little")
    assert decode(bytes(data), OPTIONS).width_px == 23


def test_damage_after_the_first_frame_is_ignored() -> None:
    for image_format in ("GIF", "PNG"):
        data = animation(image_format)
        assert decode(data[: len(data) * 9 // 10], OPTIONS).width_px == 23
