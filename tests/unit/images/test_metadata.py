from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from stylemill.images.decode import decode
from stylemill.images.encode import encode
from stylemill.images.metadata import clean_xmp as clean
from stylemill.images.options import DecodeOptions, EncodeOptions, KeepMetadata
from stylemill.images.pixels import apply_orientation

from .drawn import ALPHA_HW, RGB_HWC, picture, save

OPTIONS = DecodeOptions()
WITH_EXIF = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
GPS = {1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)}
XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:my="http://example.org/my/"
 tiff:Orientation="6" exif:GPSLatitude="48,51.5N" my:Kept="yes">
<dc:creator><rdf:Seq><rdf:li>Zo\xc3\xab Writer</rdf:li></rdf:Seq></dc:creator>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">\xc2\xa9 the estate</rdf:li></rdf:Alt></dc:rights>
<exif:GPSLongitude>2,17.6E</exif:GPSLongitude>
<xmp:Thumbnails><rdf:Alt><rdf:li>base64 of a preview</rdf:li></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def photo_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Artist] = "Zoë".encode()
    exif[ExifTags.Base.Copyright] = "© Zoë".encode()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(GPS)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.FNumber] = 2.8
    details[ExifTags.Base.MakerNote] = b"serial number 12345"
    return exif


def tags_of(data: bytes) -> Image.Exif:
    return Image.open(io.BytesIO(data)).getexif()


@pytest.mark.parametrize("image_format", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_then_neutralised(image_format: str, orientation: int) -> None:
    lossless = {"lossless": True} if image_format == "WEBP" else {}
    data = save(Image.fromarray(RGB_HWC), image_format, exif=photo_exif(orientation), quality=95, **lossless)
    source = decode(data, OPTIONS)
    expected = apply_orientation(RGB_HWC, orientation)
    assert source.image_HWC.shape == expected.shape
    tolerance = 20 if image_format in ("JPEG", "AVIF") else 0
    assert np.abs(source.image_HWC.astype(int) - expected).max() <= tolerance
    for policy in ("none", "copyright", "all"):
        result = encode(source.image_HWC, source, EncodeOptions(keep_metadata=policy)).data
        assert tags_of(result).get(ExifTags.Base.Orientation, 1) == 1
        assert decode(result, OPTIONS).image_HWC.shape == expected.shape


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_to_alpha(orientation: int) -> None:
    source = decode(save(picture("RGBA"), "PNG", exif=photo_exif(orientation)), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, apply_orientation(ALPHA_HW, orientation))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_are_ignored(orientation: int) -> None:
    assert decode(save(picture("RGB"), "PNG", exif=photo_exif(orientation)), OPTIONS).width_px == RGB_HWC.shape[1]


def test_orientation_is_applied_to_resolution() -> None:
    data = save(picture("RGB"), "JPEG", exif=photo_exif(6), dpi=(300, 150))
    source = decode(data, OPTIONS)
    assert source.metadata.dpi == (150, 300)
    assert Image.open(io.BytesIO(encode(source.image_HWC, source, EncodeOptions()).data)).info["dpi"] == (150, 300)


@pytest.mark.parametrize("image_format", WITH_EXIF)
@pytest.mark.parametrize("policy", ["none", "copyright", "all"])
def test_metadata_is_kept_by_policy_and_location_never(image_format: str, policy: KeepMetadata) -> None:
    data = save(picture("RGB"), image_format, exif=photo_exif())
    source = decode(data, OPTIONS)
    assert (source.metadata.artist, source.metadata.copyright) == ("Zoë", "© Zoë")
    result = encode(source.image_HWC, source, EncodeOptions(keep_metadata=policy)).data
    tags = tags_of(result)
    assert not tags.get_ifd(ExifTags.IFD.GPSInfo)
    assert b"serial number 12345" not in result
    assert ExifTags.Base.MakerNote not in tags.get_ifd(ExifTags.IFD.Exif)
    assert ("Zoë".encode() in result) == (policy != "none")
    assert (tags.get(ExifTags.Base.Make) == "Camera") == (policy == "all")
    if image_format != "TIFF":  # Pillow writes no directory of details there
        kept = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FNumber)
        assert (kept == 2.8) == (policy == "all")


def test_a_preview_never_survives() -> None:
    exif = photo_exif()
    exif.get_ifd(ExifTags.IFD.IFD1).update({0x0103: 6, 0x0201: 0, 0x0202: 0})
    source = decode(save(picture("RGB"), "JPEG", exif=exif), OPTIONS)
    result = encode(source.image_HWC, source, EncodeOptions(keep_metadata="all")).data
    assert not tags_of(result).get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_xmp_packet_keeps_its_credits_and_loses_location_and_preview(image_format: str) -> None:
    if image_format == "TIFF":
        data = save(picture("RGB"), "TIFF", tiffinfo={700: XMP})
    elif image_format == "PNG":
        from PIL import PngImagePlugin

        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = save(picture("RGB"), "PNG", pnginfo=info)
    else:
        data = save(picture("RGB"), image_format, xmp=XMP)
    source = decode(data, OPTIONS)
    assert (source.metadata.artist, source.metadata.copyright) == ("Zoë Writer", "© the estate")
    result = encode(source.image_HWC, source, EncodeOptions(keep_metadata="all")).data
    for lost in (b"GPS", b"Orientation", b"Thumbnails", b"preview"):
        assert lost not in result
    again = decode(result, OPTIONS).metadata
    assert again.xmp is not None
    assert b"Kept" in again.xmp
    for policy in ("none", "copyright"):
        assert b"Kept" not in encode(source.image_HWC, source, EncodeOptions(keep_metadata=policy)).data


def test_an_orientation_that_only_xmp_holds_is_applied() -> None:
    source = decode(save(picture("RGB"), "JPEG", xmp=XMP), OPTIONS)
    assert source.image_HWC.shape == apply_orientation(RGB_HWC, 6).shape


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x",
        b"\x00\x01\x02",
        XMP[:300],
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        b"<a>" * 100_000,
        b"<?xml version='1.0' encoding='utf-99'?><a/>",
    ],
)
def test_a_damaged_packet_is_dropped(packet: bytes) -> None:
    assert clean(packet) is None


@pytest.mark.parametrize(
    "junk", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + bytes(range(200)), b"\xff" * 99]
)
def test_damaged_exif_is_ignored(junk: bytes) -> None:
    for image_format in ("JPEG", "PNG", "WEBP"):
        source = decode(save(picture("RGB"), image_format, exif=junk), OPTIONS)
        assert source.image_HWC.shape == RGB_HWC.shape


def test_text_chunks_of_a_png() -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ann")
    info.add_text("Raw profile type exif", "4749")
    info.add_itxt("Title", "Über")
    source = decode(save(picture("RGB"), "PNG", pnginfo=info), OPTIONS)
    assert source.metadata.artist == "Ann"
    result = Image.open(io.BytesIO(encode(source.image_HWC, source, EncodeOptions(keep_metadata="all")).data))
    assert (result.info["Author"], result.info["Title"]) == ("Ann", "Über")
    assert "Raw profile type exif" not in result.info


@pytest.mark.parametrize("image_format", ["GIF", "JPEG2000"])
def test_containers_without_exif_hold_the_credit_as_a_comment(image_format: str) -> None:
    source = decode(save(picture("RGB"), "PNG", exif=photo_exif()), OPTIONS)
    from dataclasses import replace

    moved = replace(source, source_format=image_format.lower())
    assert "Zoë, © Zoë".encode() in encode(moved.image_HWC, moved, EncodeOptions()).data
    assert b"Zo" not in encode(moved.image_HWC, moved, EncodeOptions(keep_metadata="none")).data
