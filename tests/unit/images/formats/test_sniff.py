from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.decode import decode
from stylemill.images.formats.sniff import READABLE, SNIFF_BYTES, is_lossless, sniff
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import every_file, picture, save

OPTIONS = DecodeOptions()
NAMES = {"MPO": "jpeg"}


@pytest.mark.parametrize("name", sorted(every_file()))
def test_every_format_is_known_by_its_first_bytes(name: str) -> None:
    image_format = name.split("-", maxsplit=1)[0]
    found = sniff(every_file()[name][:SNIFF_BYTES])
    assert found == NAMES.get(image_format, image_format.lower())
    assert found in READABLE


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.jpg", "x")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return buffer.getvalue()


SKIPPED = [
    (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "Html"),
    (b"\n\n <HTML><HEAD>", "Html"),
    (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html>', "Html"),
    (b"<!-- saved -->\n<html>", "Html"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "Xml"),
    (b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/">', "Sidecar"),
    (json.dumps({"message": "not found"}).encode(), "Json"),
    (b"[1, 2]", "Json"),
    (b"hello, world\n", "Text"),
    ("Grüße".encode(), "Text"),
    ("Viele Grüße aus Köln".encode("latin-1"), "Text"),
    ("\ufeffGrüße".encode("utf-16"), "Text"),
    (b"BMW is a car", "Text"),
    (b"P6 is no picture here" * 3, "Text"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Text"),
    (b"%PDF-1.7\n%\xe2\xe3", "Pdf"),
    (archive("zip"), "Archive"),
    (archive("tar"), "Archive"),
    (gzip.compress(b"x", mtime=0), "Archive"),
    (b"7z\xbc\xaf\x27\x1c\x00\x04", "Archive"),
    (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "Video"),
    (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ", "Video"),
    (b"\x1aE\xdf\xa3\x93B\x82\x88matroska", "Video"),
    (b"RIFF\x00\x00\x00\x00AVI LIST", "Video"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", "Audio"),
    (b"ID3\x03\x00", "Audio"),
    (b"\x7fELF\x02\x01\x01", "Program"),
    (b"MZ\x90\x00\x03", "Program"),
    (b"SQLite format 3\x00", "Database"),
    (b"\x00\x00\x00\x01Bud1\x00", "Sidecar"),
    (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "Sidecar"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Document"),
    (bytes(1000), "UnknownContent"),
    (b"\x00", "UnknownContent"),
    (b"\xde\xad\xbe\xef", "UnknownContent"),
]


@pytest.mark.parametrize(("data", "error_type"), SKIPPED)
def test_what_is_no_image_is_skipped_with_a_reason(data: bytes, error_type: str) -> None:
    with pytest.raises(NotAnImage) as skipped:
        decode(data, OPTIONS)
    assert skipped.value.error_type == error_type
    assert len(skipped.value.message) > 15


UNREAD = [
    (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    (b'<?xml version="1.0"?>\n<!-- drawn -->\n<!DOCTYPE svg PUBLIC "x">\n<svg:svg>', "SVG"),
    (b"%!PS-Adobe-3.0", "PostScript"),
    (b"\xff\x0a\xfa\x7f", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"v/1\x01\x02\x00\x00\x00", "OpenEXR"),
    (b"#?RADIANCE\n", "Radiance"),
    (b"gimp xcf v011\x00", "GIMP"),
    (bytes(128) + b"DICM", "DICOM"),
    (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "camera raw"),
    (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "camera raw"),
    (b"P7\nWIDTH 1\n", "PPM"),
    (b"\x97JB2\r\n\x1a\n", "JBIG2"),
]


@pytest.mark.parametrize(("data", "name"), UNREAD)
def test_an_image_that_is_not_read_failed_and_is_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name) as refused:
        decode(data, OPTIONS)
    assert not isinstance(refused.value, NotAnImage)


def test_heif_without_its_extra_names_the_cure() -> None:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        with pytest.raises(ImageError, match=r"stylemill\[heif\]") as refused:
            decode(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", OPTIONS)
        assert refused.value.error_type == "UnsupportedFormat"
    else:
        pytest.skip("the extra is installed")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heif_with_its_extra_is_read_upright(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra: pip install 'stylemill[heif]'")
    import numpy as np
    from PIL import Image

    from stylemill.images.pixels import apply_orientation

    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture("RGB").resize((64, 48))
    image.info["exif"] = exif.tobytes()
    source = decode(save(image, "HEIF", quality=95), OPTIONS)
    expected = apply_orientation(np.asarray(image), orientation)
    assert source.source_format == "heif"
    assert source.image_HWC.shape == expected.shape
    assert np.abs(source.image_HWC.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("image_format", "options", "lossless"),
    [
        ("JPEG", {}, False),
        ("PNG", {}, True),
        ("WEBP", {}, False),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, True),
        ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, False),
        ("JPEG2000", {}, True),
        ("JPEG2000", {"irreversible": True}, False),
        ("AVIF", {}, False),
    ],
)
def test_lossless_files_are_told_from_lossy_ones(image_format: str, options: dict[str, object], lossless: bool) -> None:
    assert is_lossless(save(picture("RGB"), image_format, **options), image_format.lower()) == lossless
