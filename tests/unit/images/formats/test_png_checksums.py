from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.png_checksums import check_rows
from stylemill.images.options import DecodeOptions
from tests.unit.images.stated import png_chunk

OPTIONS = DecodeOptions()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def png(**options: object) -> bytes:
    buffer = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a comment")
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=text, dpi=(300, 300), **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def broken(data: bytes, kind: bytes, *, part: str) -> bytes:
    """Change one byte of the first chunk of a kind: of its content or of its checksum."""
    at = data.index(kind)
    length = int.from_bytes(data[at - 4 : at], "big")
    changed = at + 4 + (length // 2 if part == "content" else length)
    return data[:changed] + bytes([data[changed] ^ 0x41]) + data[changed + 1 :]


@pytest.mark.parametrize("part", ["content", "checksum"])
@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_damage_in_a_chunk_that_the_pixels_need_is_refused(kind: bytes, part: str) -> None:
    data = png()
    if kind == b"PLTE":
        buffer = io.BytesIO()
        Image.fromarray(PIXELS).quantize(16).save(buffer, "PNG")
        data = buffer.getvalue()
    with pytest.raises(ImageError) as refused:
        decode(broken(data, kind, part=part), OPTIONS)
    assert refused.value.error_type == "Corrupt"
    assert kind.decode() in refused.value.message


@pytest.mark.parametrize("part", ["content", "checksum"])
@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs"])
def test_damage_in_any_other_chunk_is_a_note(kind: bytes, part: str) -> None:
    source = decode(broken(png(), kind, part=part), OPTIONS)
    assert (source.image_HWC == PIXELS).all()
    assert any(kind.decode() in note for note in source.notes)


def test_a_damaged_animation_leaves_the_picture_for_viewers_without() -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    data = broken(buffer.getvalue(), b"fdAT", part="content")
    source = decode(data, OPTIONS)
    assert (source.image_HWC == PIXELS).all()
    assert any("fdAT" in note for note in source.notes)
    with pytest.raises(ImageError):
        decode(data, DecodeOptions(animation="all"))


def test_a_missing_end_and_bytes_behind_the_end_are_harmless() -> None:
    data = png()
    source = decode(data[:-12], OPTIONS)
    assert (source.image_HWC == PIXELS).all()
    assert source.notes == ("its end marker is not there",)
    assert (decode(data + b"\0" * 500, OPTIONS).image_HWC == PIXELS).all()


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.99])
def test_pixel_data_in_several_chunks_that_is_cut_between_them_is_refused(part: float) -> None:
    data = png()
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    content = data[start + 8 : end - 4]
    chunks = []
    for at in range(0, len(content), 100):
        chunk = b"IDAT" + content[at : at + 100]
        chunks.append((len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big"))
    assert (decode(data[:start] + b"".join(chunks) + data[end:], OPTIONS).image_HWC == PIXELS).all()
    for tail in (b"", data[end:]):
        with pytest.raises(ImageError):
            decode(data[:start] + b"".join(chunks[: int(len(chunks) * part)]) + tail, OPTIONS)


def with_pixel_data(data: bytes, content: bytes) -> bytes:
    """Replace the pixel data of a PNG, with right checksums."""
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    chunk = b"IDAT" + content
    return data[:start] + len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[end:]


def pixel_data(data: bytes) -> bytes:
    return zlib.decompress(data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixel_data_that_ends_early_inside_sound_chunks_is_refused(mode: str) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS).convert("L").convert("I;16") if mode == "I;16" else Image.fromarray(PIXELS)
    (image if mode == "I;16" else image.convert(mode)).save(buffer, "PNG")
    lines = pixel_data(buffer.getvalue())
    for part in (0.5, 0.98):
        with pytest.raises(ImageError) as refused:
            decode(with_pixel_data(buffer.getvalue(), zlib.compress(lines[: int(len(lines) * part)])), OPTIONS)
        assert refused.value.error_type == "Truncated"


def test_an_interlaced_picture_without_its_last_passes_is_refused() -> None:
    data = png()
    header = bytearray(data[12:29])
    header[-1] = 1
    head = data[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    passes = [PIXELS[top::down, left::across] for left, top, across, down in ADAM7]
    lines = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    sound = with_pixel_data(head, zlib.compress(lines))
    assert (decode(sound, OPTIONS).image_HWC == PIXELS).all()
    without_last = b"".join(b"\0" + row.tobytes() for part in passes[:-1] for row in part)
    with pytest.raises(ImageError):
        decode(with_pixel_data(head, zlib.compress(without_last)), OPTIONS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_black_picture_is_sound(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (700, 2000)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), OPTIONS).image_HWC.shape == (2000, 700, 3)


def test_one_large_chunk_is_counted_without_copies_of_its_rest() -> None:
    # What is copied for every part of the output makes the time quadratic.
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (2000, 2000, 4), dtype=np.uint8)
    pixels_HWC[-1] = 0
    lines = np.zeros((2000, 8001), np.uint8)
    lines[:, 1:] = pixels_HWC.reshape(2000, -1)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 2000, 8, 6, 0, 0, 0))
    data = SIGNATURE + header + png_chunk(b"IDAT", zlib.compress(lines.tobytes(), 0)) + png_chunk(b"IEND", b"")
    image = Image.fromarray(pixels_HWC)
    tracemalloc.start()
    try:
        check_rows(data, image)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("num_bytes", range(1, 13))
def test_an_end_marker_that_is_cut_off_is_harmless(num_bytes: int) -> None:
    source = decode(png()[:-num_bytes], OPTIONS)
    assert (source.image_HWC == PIXELS).all()
    assert source.notes == (("its end marker is not there",) if num_bytes > 4 else ())


def test_a_damaged_palette_that_the_pixels_do_not_use_is_a_note() -> None:
    chunk = png_chunk(b"PLTE", bytes(30))
    data = png()
    source = decode(data[:33] + chunk[:-1] + bytes([chunk[-1] ^ 1]) + data[33:], OPTIONS)
    assert (source.image_HWC == PIXELS).all()
    assert source.notes == ("a damaged chunk was ignored: PLTE",)


@pytest.mark.parametrize("part", ["content", "checksum"])
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_damaged_transparency_is_refused(mode: str, part: str) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(buffer, "PNG", transparency=(3, 4, 5) if mode == "RGB" else 3)
    with pytest.raises(ImageError, match="tRNS") as refused:
        decode(broken(buffer.getvalue(), b"tRNS", part=part), OPTIONS)
    assert refused.value.error_type == "Corrupt"


def test_damaged_transparency_of_a_picture_with_alpha_is_a_note() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("RGBA").save(buffer, "PNG")
    data, chunk = buffer.getvalue(), png_chunk(b"tRNS", bytes(6))
    source = decode(data[:33] + chunk[:-1] + bytes([chunk[-1] ^ 1]) + data[33:], OPTIONS)
    assert source.notes == ("a damaged chunk was ignored: tRNS",)


def test_only_the_damaged_one_of_several_chunks_of_a_kind_is_left_out() -> None:
    buffer = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "first")
    text.add_text("Copyright", "by me")
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=text)
    source = decode(broken(buffer.getvalue(), b"tEXt", part="content"), OPTIONS)
    assert source.notes == ("a damaged chunk was ignored: tEXt",)
    assert source.metadata.copyright == "by me"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"\0\0\0\x03IHDRabc\0\0\0\0", "its header has 3 bytes instead of 13"),
        (b"\0\0\0\x03tEXta\0b\0\0\0\0", "it begins with the chunk tEXt instead of its header"),
        (b"", "it begins with the chunk tEXt instead of its header"),
    ],
)
def test_a_file_that_does_not_begin_with_a_header_is_told_so(first: bytes, message: str) -> None:
    data = png()
    rest = data[33:] if not first.startswith(b"\0\0\0\x03tEXt") else data[8:]
    if not first:
        rest = png_chunk(b"tEXt", b"a" * 200) + data[33:]
    with pytest.raises(ImageError, match=message) as refused:
        decode(SIGNATURE + first + rest, OPTIONS)
    assert refused.value.error_type == "Corrupt"


def test_an_apple_optimised_png_is_named() -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    raw = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    data = SIGNATURE + png_chunk(b"CgBI", b"\x50\0\x20\x02") + png()[8:33]
    data += png_chunk(b"IDAT", deflate.compress(raw) + deflate.flush()) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="an Apple-optimised PNG") as refused:
        decode(data, OPTIONS)
    assert refused.value.error_type == "UnsupportedFormat"
