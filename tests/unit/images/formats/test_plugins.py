from __future__ import annotations

import gzip

import pytest

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import picture, save

OPTIONS = DecodeOptions()


UNSUPPORTED = [
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
    (b"P7\nWIDTH 1\n", "PAM"),
    (b"PF\n8 8\n-1.0\n" + bytes(768), "PFM"),
    (b"farbfeld" + bytes(40), "farbfeld"),
    (gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g/>" * 5000, mtime=0), "SVG"),
    (b"FORM\x00\x00\x10\x00ILBMBMHD", "Amiga"),
    (b"\x13\xab\xa1\x5c\x04\x04\x01", "ASTC"),
    (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/x-krita", "Krita"),
    (b"PDN3" + bytes(40), "Paint.NET"),
    (b"MM\x00\x2b\x00\x08\x00\x00" + bytes(40), "BigTIFF"),
    (b"\x97JB2\r\n\x1a\n", "JBIG2"),
]


@pytest.mark.parametrize(("data", "name"), UNSUPPORTED)
def test_unsupported_formats_fail_and_are_named(data: bytes, name: str) -> None:
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


def test_no_plugin_that_starts_programs_is_ever_reached() -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\xc5\xd0\xd3\xc6" + bytes(40)):
        with pytest.raises(ImageError, match="PostScript") as refused:
            decode(data, OPTIONS)
        assert refused.value.error_type == "UnsupportedFormat"
