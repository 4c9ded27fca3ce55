from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats import png_ancillary
from stylemill.images.formats.png_checksums import checked
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import picture, save
from tests.unit.images.stated import png_chunk, png_with

OPTIONS = DecodeOptions()
PLAIN = save(picture("RGB"), "PNG")
PIXELS = decode(PLAIN, OPTIONS).image_HWC
LARGE = zlib.compress(bytes(20 << 20), 9)
COPYRIGHT = (b"tEXt", b"Copyright\0by me")
ITXT = b"XML:com.adobe.xmp\0\1\0\0\0"

UNREADABLE = {
    "compressed text that is too large": (b"zTXt", b"mxfile\0\0" + LARGE),
    "international text that is too large": (b"iTXt", ITXT + LARGE),
    "a profile that is too large": (b"iCCP", b"x\0\0" + LARGE),
    "text of an unknown compression": (b"zTXt", b"Comment\0\1" + zlib.compress(b"a")),
    "a profile of an unknown compression": (b"iCCP", b"x\0\1" + zlib.compress(b"a")),
    "an empty profile": (b"iCCP", b""),
    "a profile with a name only": (b"iCCP", b"x\0"),
    "a short gamma": (b"gAMA", b"\0"),
    "short chromaticities": (b"cHRM", bytes(31)),
    "an empty intent": (b"sRGB", b""),
    "a short resolution": (b"pHYs", bytes(8)),
    "a short transparency": (b"tRNS", bytes(5)),
    "a short number of frames": (b"acTL", bytes(7)),
    "a short control of a frame": (b"fcTL", bytes(25)),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_pillow_refuses_beside_the_pixels_is_left_out_with_a_note(name: str, behind: bool) -> None:
    chunk = UNREADABLE[name]
    data = png_with(PLAIN, COPYRIGHT) if behind else png_with(PLAIN, chunk, COPYRIGHT)
    if behind:
        data = data[:-12] + png_chunk(*chunk) + data[-12:]
    source = decode(data, OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, PIXELS)
    assert source.notes == (f"a chunk that cannot be read was ignored: {chunk[0].decode()}",)
    assert source.metadata.copyright == "by me"


@pytest.mark.parametrize("num_bytes", [0, 1000, 3 << 20])
def test_large_texts_and_profiles_of_real_files_are_kept(num_bytes: int) -> None:
    text = zlib.compress(bytes(num_bytes))
    texts = (b"zTXt", b"mxfile\0\0" + text), (b"iTXt", ITXT + text), (b"tEXt", b"workflow\0" + bytes(num_bytes))
    for chunk in (*texts, (b"iCCP", b"x\0\0" + text)):
        data = png_with(PLAIN, chunk)
        assert checked(data, all_frames=False) == (data, [])
        np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, PIXELS)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b""),
        (b"zTXt", b"Comment"),
        (b"zTXt", b"Comment\0"),
        (b"zTXt", b"Comment\0\0not compressed"),
        (b"iTXt", b""),
        (b"iTXt", b"a\0"),
        (b"iTXt", b"a\0\1\0"),
        (b"iTXt", b"a\0\1\1\0\0x"),
        (b"iTXt", ITXT + b"not compressed"),
        (b"iCCP", b"x\0\0not compressed"),
        (b"tEXt", b""),
        (b"tEXt", b"no end of the key"),
        (b"eXIf", b""),
        (b"cICP", b""),
    ],
)
def test_what_pillow_passes_over_is_no_error(chunk: tuple[bytes, bytes]) -> None:
    np.testing.assert_array_equal(decode(png_with(PLAIN, chunk), OPTIONS).image_HWC, PIXELS)


def test_texts_that_are_too_large_together_are_left_out() -> None:
    chunk = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(15 << 20), 9))
    source = decode(png_with(PLAIN, *[chunk] * 9), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, PIXELS)
    assert source.notes == ("a chunk that cannot be read was ignored: zTXt",)


def test_no_more_is_inflated_than_the_limit_of_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    count = png_ancillary.count_inflated

    def counting(parts: list[memoryview], most: int) -> int:
        counted.append(count(parts, most))
        return counted[-1]

    monkeypatch.setattr(png_ancillary, "count_inflated", counting)
    decode(png_with(PLAIN, *[(b"zTXt", b"Comment\0\0" + LARGE)] * 200), OPTIONS)
    assert 0 < sum(counted) <= 64 << 20


def test_short_chunks_of_an_animation_are_damage_if_all_frames_are_wanted() -> None:
    data = png_with(PLAIN, (b"acTL", bytes(7)))
    with pytest.raises(ImageError, match="acTL") as refused:
        decode(data, DecodeOptions(animation="all"))
    assert refused.value.error_type == "Corrupt"


def frames_png(*numbers: int) -> bytes:
    """Frames whose chunks bear these numbers of the sequence; the picture itself is the first frame."""
    height, width = PIXELS.shape[:2]
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
    parts = [(b"acTL", struct.pack(">II", 2, 0))]
    control = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 10, 0, 0)
    parts += [(b"fcTL", struct.pack(">I", numbers[0]) + control), (b"IDAT", rows)]
    parts += [(b"fcTL", struct.pack(">I", numbers[1]) + control), (b"fdAT", struct.pack(">I", numbers[2]) + rows)]
    return PLAIN[:33] + b"".join(png_chunk(*part) for part in parts) + PLAIN[-12:]


@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 2, 3), (0, 1, 3)])
def test_frames_out_of_order_leave_the_picture_for_viewers_without_animation(numbers: tuple[int, int, int]) -> None:
    assert len(decode(frames_png(0, 1, 2), DecodeOptions(animation="all")).frames) == 2
    source = decode(frames_png(*numbers), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, PIXELS)
    with pytest.raises(ImageError) as refused:
        decode(frames_png(*numbers), DecodeOptions(animation="all"))
    assert refused.value.error_type == "Corrupt"
