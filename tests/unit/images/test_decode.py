from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.alpha16 import write_png16
from stylemill.images.options import DecodeOptions
from tests.drawn import wide_gamut_profile

from .drawn import ALPHA_HW, DEEP_HW, FORMATS, HEIGHT, RGB_HWC, WIDTH, animation, every_file, picture, save

OPTIONS = DecodeOptions()
ALL_FRAMES = DecodeOptions(animation="all")


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
def test_lossless_containers_give_every_mode_back(image_format: str, mode: str) -> None:
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


def test_ycck_jpeg_is_read_as_its_cmyk() -> None:
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


def test_sixteen_bit_alpha_is_kept_to_the_last_bit() -> None:
    alpha_HW = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    source = decode(write_png16(RGB_HWC, alpha_HW, []), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.alpha_HW is not None
    assert source.alpha_HW.dtype == np.uint16
    np.testing.assert_array_equal(source.alpha_HW, alpha_HW)


def test_sixteen_bit_alpha_that_eight_bits_hold_becomes_eight_bits() -> None:
    source = decode(write_png16(RGB_HWC, ALPHA_HW.astype(np.uint16) * 257, []), OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW.dtype == np.uint8
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)


def png(width: int, height: int, bits: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in body)


def test_gray_with_sixteen_bit_alpha() -> None:
    samples = np.stack([DEEP_HW, DEEP_HW[::-1]], axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    source = decode(png(WIDTH, HEIGHT, 16, 4, rows), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, DEEP_HW[::-1])
    assert np.abs(source.image_HWC[..., 0] - DEEP_HW / 257).max() <= 1


def test_a_transparent_colour_of_sixteen_bits_hides_that_colour_alone() -> None:
    samples = np.zeros((2, 2, 3), ">u2")
    samples[0, 0] = (0x1234, 0x5678, 0x9ABC)
    samples[0, 1] = (0x1235, 0x5678, 0x9ABC)  # the same in its high bytes
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    data = png(2, 2, 16, 2, rows, (b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)))
    assert decode(data, OPTIONS).alpha_HW.tolist() == [[0, 255], [255, 255]]  # type: ignore[union-attr]


def test_a_transparent_gray_of_sixteen_bits() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP_HW)
    data = png(WIDTH, HEIGHT, 16, 0, rows, (b"tRNS", struct.pack(">H", 2000)))
    np.testing.assert_array_equal(decode(data, OPTIONS).alpha_HW, np.where(DEEP_HW == 2000, 0, 255))


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


def test_a_compression_that_is_not_read_is_named() -> None:
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


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_is_converted_to_srgb(image_format: str) -> None:
    flat = Image.new("RGB", (32, 32), (60, 180, 90))
    source = decode(save(flat, image_format, quality=95, icc_profile=wide_gamut_profile()), OPTIONS)
    profiles = [ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile())), ImageCms.createProfile("sRGB")]
    expected = ImageCms.profileToProfile(flat, *profiles, renderingIntent=1).getpixel((0, 0))  # type: ignore[union-attr]
    assert source.had_profile
    assert source.notes == ()
    assert np.abs(source.image_HWC[16, 16].astype(int) - expected).max() <= 4
    assert source.image_HWC[16, 16, 0] < 45  # the colour did change: red leaves the smaller gamut


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_alpha_is_no_part_of_the_conversion(image_format: str) -> None:
    source = decode(save(picture("RGBA"), image_format, icc_profile=wide_gamut_profile()), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)
    assert (source.image_HWC != RGB_HWC).any()


INKS_LAB = {
    "paper": (100, 0, 0),
    "cyan": (55, -37, -50),
    "magenta": (48, 74, -3),
    "yellow": (89, -5, 93),
    "black": (16, 0, 0),
}


def ink_profile() -> bytes:
    """A profile of a printing press, drawn by code: a table of what Lab colour each overprint of full inks has."""
    table = bytearray()
    for index in range(16):
        inks = [name for bit, name in enumerate(("black", "yellow", "magenta", "cyan")) if index >> bit & 1]
        layers = np.array([INKS_LAB[name] for name in inks] or [INKS_LAB["paper"]], float)
        lightness = 100 * np.prod(layers[:, 0] / 100)
        table += bytes((round(lightness * 2.55), *(int(128 + layers[:, axis].mean()) for axis in (1, 2))))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(table) + ramp * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"wtpt": white}
    offset = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    header = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", header, 0, offset + len(body), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + directory + body


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("ink", sorted(INKS_LAB))
def test_cmyk_with_a_profile_is_rendered_by_it(image_format: str, ink: str) -> None:
    inks = tuple(255 * (name == ink) for name in ("cyan", "magenta", "yellow", "black"))
    source = decode(save(Image.new("CMYK", (16, 16), inks), image_format, icc_profile=ink_profile()), OPTIONS)
    lightness, a, b = INKS_LAB[ink]
    lab = Image.new("LAB", (1, 1), (round(lightness * 2.55), a + 128, b + 128))
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    expected = np.asarray(ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(lab)).astype(int)
    assert source.notes == ()
    # Black point compensation makes the darkest ink of the press the darkest colour of the screen.
    tolerance = 48 if ink == "black" else 16
    assert np.abs(source.image_HWC[8, 8] - expected).max() <= tolerance


def test_srgb_under_any_name_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = decode(save(picture("RGB"), "PNG", icc_profile=profile), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200, wide_gamut_profile()[:300]])
def test_a_damaged_profile_costs_a_note(profile: bytes) -> None:
    source = decode(save(picture("RGB"), "PNG", icc_profile=profile), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert len(source.notes) == 1
    assert "ICC profile was ignored" in source.notes[0]


def test_a_profile_for_other_pixels_costs_a_note() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    source = decode(save(picture("RGB"), "PNG", icc_profile=lab), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert "for Lab, not for RGB" in source.notes[0]


def test_a_gray_picture_under_an_rgb_profile_is_converted() -> None:
    source = decode(save(picture("L"), "PNG", icc_profile=wide_gamut_profile()), OPTIONS)
    assert source.notes == ()
    assert source.had_profile


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_is_taken_and_said_to_be(image_format: str) -> None:
    source = decode(animation(image_format), OPTIONS)
    assert source.notes == ("first of 3 frames",)
    assert source.frames == ()
    assert source.alpha_HW is not None
    assert (source.alpha_HW[:3, :4] < 5).all()
    assert (source.alpha_HW[5:, 5:] == 255).all()


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_all_frames_are_taken_with_their_timing(image_format: str) -> None:
    source = decode(animation(image_format), ALL_FRAMES)
    assert [frame.duration_ms for frame in source.frames] == [40, 70, 100]
    assert source.notes == ()
    assert source.loop == (None if image_format == "AVIF" else 3)
    for index, frame in enumerate(source.frames):
        assert frame.alpha_HW is not None
        assert (frame.alpha_HW[: 3 + index, :4] < 5).all()
        assert (frame.alpha_HW[6:, 6:] == 255).all()
        assert np.abs(frame.image_HWC[10, 10].astype(int) - np.eye(3)[index] * 200).max() < 12
    np.testing.assert_array_equal(source.frames[0].image_HWC, source.image_HWC)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_opaque_animations_have_no_alpha(image_format: str) -> None:
    source = decode(animation(image_format, opaque=True), ALL_FRAMES)
    assert source.alpha_HW is None
    assert [frame.alpha_HW for frame in source.frames] == [None] * 3


def test_the_picture_for_viewers_without_animation_is_no_frame() -> None:
    data = animation("PNG", default_image=True)
    assert len(decode(data, ALL_FRAMES).frames) == 2


def test_pages_of_a_document_are_counted() -> None:
    pages = [picture("RGB"), picture("L"), picture("1")]
    source = decode(save(pages[0], "TIFF", save_all=True, append_images=pages[1:]), ALL_FRAMES)
    assert source.notes == ("first of 3 pages",)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)


def test_frames_count_together_against_the_pixel_limit() -> None:
    data = animation("GIF", num_frames=5)
    few = DecodeOptions(animation="all", max_pixels=WIDTH * HEIGHT * 5 - 1)
    with pytest.raises(ImageError, match="5 frames of 23 x 14 px"):
        decode(data, few)
    assert decode(data, DecodeOptions(max_pixels=few.max_pixels)).width_px == WIDTH
