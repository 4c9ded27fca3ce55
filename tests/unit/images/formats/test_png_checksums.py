from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

OPTIONS = DecodeOptions()
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
