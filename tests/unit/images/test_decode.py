from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

from .drawn import ALPHA_HW, DEEP_HW, FORMATS, HEIGHT, RGB_HWC, WIDTH, every_file, picture, save

OPTIONS = DecodeOptions()


def reference(image: Image.Image) -> np.ndarray:
    """The same picture as 8-bit sRGB, by plain arithmetic."""
    if image.mode.startswith("I"):
        gray = np.asarray(image) / 257
    elif image.mode == "F":
        gray = np.asarray(image) * 255
    elif image.mode == "LAB":
        return RGB_HWC.astype(float)
    else:
        return np.asarray(image.convert("RGBA" if "A" in image.mode else "RGB"))[..., :3].astype(float)
    return np.repeat(gray[..., None], 3, axis=-1)


# Pillow 13 swaps the bytes of I;16B when it writes JPEG 2000.
EXACT = ("PNG", "TIFF", "JPEG2000", "BMP", "PPM", "TGA", "ICO", "SGI", "PCX", "QOI")
PLAIN = sorted(
    (image_format, mode)
    for image_format, mode, *options in (name.split("-") for name in every_file())
    if image_format in EXACT and options in ([], ["None"]) and (image_format, mode) != ("JPEG2000", "I;16B")
)


@pytest.mark.parametrize(("image_format", "mode"), PLAIN)
def test_lossless_formats_decode_every_mode_exactly(image_format: str, mode: str) -> None:
    image = picture(mode)
    source = decode(save(image, image_format), OPTIONS)
    # 8 bits are too few for a and b of saturated colours in Lab.
    tolerance = 24 if mode == "LAB" else 0.5
    assert np.abs(source.image_HWC - reference(image)).max() <= tolerance
    if "A" in mode and mode != "LAB" and image_format not in ("BMP", "PPM"):
        np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)
    else:
        assert source.alpha_HW is None


def test_the_corpus_holds_every_format() -> None:
    assert {name.split("-")[0] for name in every_file()} == set(FORMATS)


@pytest.mark.parametrize("name", sorted(every_file()))
def test_every_file_that_pillow_writes_decodes(name: str) -> None:
    source = decode(every_file()[name], OPTIONS)
    assert source.image_HWC.dtype == np.uint8
    assert source.image_HWC.shape[2] == 3
    if not name.startswith("ICNS"):
        assert (source.width_px, source.height_px) == (WIDTH, HEIGHT)


def test_cmyk_jpeg_of_adobe_is_inverted_and_others_are_not() -> None:
    # The only difference between the two files is the marker by which Adobe says that its inks are upside down.
    adobe = save(picture("CMYK"), "JPEG", quality=100, subsampling=0)
    at = adobe.index(b"\xff\xee")
    plain = adobe[:at] + adobe[at + 2 + int.from_bytes(adobe[at + 2 : at + 4], "big") :]
    expected = reference(picture("CMYK"))
    assert np.abs(decode(adobe, OPTIONS).image_HWC - expected).max() < 12
    inverted = decode(plain, OPTIONS).image_HWC
    cyan_magenta_yellow_black = 255 - np.asarray(picture("CMYK")).astype(int)
    ink = 255 - cyan_magenta_yellow_black
    rgb = ink[..., :3] * ink[..., 3:] / 255
    assert np.abs(inverted - rgb).max() < 12


def test_cmyk_without_a_profile_is_the_product_of_paper_and_inks() -> None:
    inks = np.asarray(picture("CMYK")).astype(float)
    rendered = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(decode(save(picture("CMYK"), "TIFF"), OPTIONS).image_HWC - rendered).max() <= 1


def test_ycck_jpeg_is_decoded_as_cmyk() -> None:
    """A YCCK file, made by calling the first three inks of a 4-channel JPEG Y, Cb and Cr.

    Adobe's inks are stored upside down and YCCK turns them once more: Y, Cb and Cr are those of C, M and Y.
    """
    inks = np.asarray(picture("CMYK"))
    ycc = Image.fromarray(inks[..., :3]).convert("YCbCr")
    channels = [*ycc.split(), Image.fromarray(inks[..., 3])]
    stored = Image.merge("CMYK", [Image.fromarray(255 - np.asarray(c)) for c in channels[:3]] + [channels[3]])
    data = bytearray(save(stored, "JPEG", quality=100, subsampling=0))
    at = data.index(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    data[at + 15] = 2  # the transform byte: YCCK
    assert np.abs(decode(bytes(data), OPTIONS).image_HWC - reference(picture("CMYK"))).max() < 14


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_of_few_bits(mode: str) -> None:
    image = picture(mode)
    pixel = image.getpixel((3, 2))
    value = (255 if pixel else 0) if mode == "1" else pixel
    data = save(image, "PNG", transparency=value)
    hidden_HW = (np.asarray(image.convert("RGB")) == np.asarray(image.convert("RGB"))[2, 3]).all(axis=-1)
    np.testing.assert_array_equal(decode(data, OPTIONS).alpha_HW, np.where(hidden_HW, 0, 255))


def test_a_palette_with_graded_transparency() -> None:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")
    image.putpalette([value for index in range(16) for value in (index * 3, 255 - index, index)])
    source = decode(save(image, "PNG", transparency=bytes(range(0, 240, 15))), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, np.arange(16).reshape(4, 4) * 15)
    np.testing.assert_array_equal(source.image_HWC[..., 0], np.arange(16).reshape(4, 4) * 3)


STRETCHED = "values from {} to {} were stretched to 0..255"
DEEP = [
    (np.float32([[0, 0.5], [1, 0.25]]), [[0, 128], [255, 64]], ()),
    (np.float32([[0, 128], [255, 7.4]]), [[0, 128], [255, 7]], ()),
    (np.float32([[0, 65535], [257, 514]]), [[0, 255], [1, 2]], ()),
    (np.float32([[-1, 1], [0, 0.5]]), [[0, 255], [128, 191]], (STRETCHED.format(-1, 1),)),
    (
        np.float32([[np.nan, 1], [np.inf, 0]]),
        [[0, 255], [0, 0]],
        ("pixels that are not finite numbers were set to black",),
    ),
    (np.float32([[5e9, 5e9], [5e9, 5e9]]), [[0, 0], [0, 0]], (STRETCHED.format("5e+09", "5e+09"),)),
    (np.int32([[0, 255], [100, 7]]), [[0, 255], [100, 7]], ()),
    (np.int32([[-100, 100], [0, 50]]), [[0, 255], [128, 191]], (STRETCHED.format(-100, 100),)),
]


@pytest.mark.parametrize(("values", "expected", "note"), DEEP)
def test_deep_pixels_are_scaled_by_the_documented_rule(
    values: np.ndarray, expected: list[list[int]], note: tuple[str, ...]
) -> None:
    source = decode(save(Image.fromarray(values), "TIFF"), OPTIONS)
    assert source.image_HWC[..., 0].tolist() == expected
    assert source.notes == note


def tiff(samples: np.ndarray, bits: int, photometric: int, **tags: int) -> bytes:
    """A TIFF of one strip, written out: Pillow writes neither 12 bits nor white as zero at 16."""
    body = samples.tobytes()
    if bits == 12:
        pairs = samples.astype(np.uint32).reshape(-1, 2)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=-1)
        body = packed.astype(np.uint8).tobytes()
    height, width = samples.shape
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 4, height), (279, 4, len(body))]
    entries += [(int(tag.removeprefix("t")), 4, value) for tag, value in tags.items()]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(entries)) + directory + bytes(4)


def test_white_may_be_zero_at_sixteen_bits() -> None:
    np.testing.assert_array_equal(
        decode(tiff(DEEP_HW, 16, 0), OPTIONS).image_HWC, 255 - decode(tiff(DEEP_HW, 16, 1), OPTIONS).image_HWC
    )


def test_twelve_bits_span_the_whole_range() -> None:
    samples = np.array([[0, 4095], [2048, 16]], np.uint16)
    assert decode(tiff(samples, 12, 1), OPTIONS).image_HWC[..., 0].tolist() == [[0, 255], [128, 1]]


def test_an_unsupported_compression_is_named() -> None:
    data = bytearray(tiff(DEEP_HW, 16, 1))
    at = data.index(struct.pack("<HHI", 259, 3, 1))
    data[at + 8 : at + 10] = (50001).to_bytes(2, "little")
    with pytest.raises(ImageError, match="WebP inside a TIFF") as refused:
        decode(bytes(data), OPTIONS)
    assert refused.value.error_type == "UnsupportedFormat"


def test_a_camera_raw_file_is_not_taken_for_its_preview() -> None:
    for tags in ({"t50706": 0x00000401}, {"t254": 1, "t330": 8}):
        with pytest.raises(ImageError, match="camera raw") as refused:
            decode(tiff(DEEP_HW, 16, 1, **tags), OPTIONS)
        assert refused.value.error_type == "UnsupportedFormat"
