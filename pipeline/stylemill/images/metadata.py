"""The metadata of a source that its result may take over: EXIF, XMP, IPTC, text and resolution.

Location, previews, maker notes, orientation and the layout of the pixels are never kept: a new EXIF block is built from
known tags, and XMP loses the properties in ``_DROPPED_NAMES``. Damaged metadata is dropped and never fails an image.
Strings come from untrusted files, so their lengths are limited.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

from PIL import ExifTags, Image, IptcImagePlugin, JpegImagePlugin, TiffImagePlugin

from stylemill.images.source_image import Metadata

_LONGEST_CREDIT: Final = 2_000
_LONGEST_PACKET: Final = 1 << 20
_LONGEST_COMMENT: Final = 1 << 16
_PNG_KEYWORDS: Final = (
    "Title",
    "Author",
    "Description",
    "Copyright",
    "Creation Time",
    "Software",
    "Disclaimer",
    "Warning",
    "Source",
    "Comment",
)
_IFD0_KEPT: Final = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.Rating,
)
_EXIF_DROPPED: Final = (
    ExifTags.Base.MakerNote,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
    ExifTags.Base.ColorSpace,
    ExifTags.Base.ComponentsConfiguration,
    ExifTags.Base.CompressedBitsPerPixel,
    0x9214,  # SubjectArea and
    0xA214,  # SubjectLocation: in pixels before the orientation is applied
)
_KNOWN_TAGS: Final = frozenset(int(tag) for tag in ExifTags.Base if 0x8298 <= tag <= 0xA500)


def orientation_of(image: Image.Image, image_format: str) -> int:
    """Return the EXIF orientation that must be applied to the pixels, 1 if they are upright.

    The plugins of TIFF and HEIF apply the orientation themselves, so it is 1 for these formats.
    """
    if image_format in ("tiff", "heif") or not ("exif" in image.info or "xmp" in image.info):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is dropped
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_metadata(image: Image.Image, orientation: int) -> Metadata:
    """Return the metadata that may be kept, without the damaged parts.

    Args:
        image: loaded.
        orientation: EXIF orientation; 5 to 8 swap horizontal and vertical resolution.
    """
    exif = _exif_tags(image)
    xmp = image.info.get("xmp")
    packet = clean_xmp(xmp) if isinstance(xmp, bytes) and len(xmp) <= _LONGEST_PACKET else None
    comment = image.info.get("comment")
    return Metadata(
        dpi=_dpi(image, orientation),
        artist=_credit(image, exif, packet, ExifTags.Base.Artist, "creator", (2, 80), "Author"),
        copyright=_credit(image, exif, packet, ExifTags.Base.Copyright, "rights", (2, 116), "Copyright"),
        exif=_kept_exif(exif),
        xmp=packet.data if packet else None,
        comment=comment[:_LONGEST_COMMENT] if isinstance(comment, bytes) and comment else None,
        text=_text_chunks(image),
    )


def _exif_tags(image: Image.Image) -> Image.Exif | None:
    if "exif" not in image.info and not hasattr(image, "tag_v2"):
        return None
    try:
        return image.getexif()
    except Exception:  # noqa: BLE001 - damaged EXIF is dropped
        return None


def _kept_exif(exif: Image.Exif | None) -> bytes | None:
    """Return a new EXIF block of the tags in ``_IFD0_KEPT`` and of the known tags outside ``_EXIF_DROPPED``."""
    if not exif:
        return None
    kept = Image.Exif()
    try:
        for tag in _IFD0_KEPT:
            if tag in exif:
                kept[tag] = exif_value(exif[tag])
        details = exif.get_ifd(ExifTags.IFD.Exif)
        known = {tag: exif_value(value) for tag, value in details.items() if _is_kept(tag, value)}
        if known:
            kept.get_ifd(ExifTags.IFD.Exif).update(known)
        return kept.tobytes() if kept or known else None
    except Exception:  # noqa: BLE001 - damaged EXIF is dropped
        return None


def _is_kept(tag: int, value: Any) -> bool:
    return tag in _KNOWN_TAGS and tag not in _EXIF_DROPPED and not isinstance(value, dict)


def exif_value(value: Any) -> Any:
    """Return a value for writing, strings as their bytes: Pillow reads EXIF strings as Latin-1 but writes ASCII."""
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def _credit(
    image: Image.Image,
    exif: Image.Exif | None,
    packet: XmpPacket | None,
    exif_tag: int,
    xmp_name: str,
    iptc_tag: tuple[int, int],
    keyword: str,
) -> str | None:
    """Return the first name or notice found in EXIF, XMP, IPTC or a text chunk, in this order."""
    found: Any = exif.get(exif_tag) if exif else None
    if not found and packet:
        found = packet.credits.get(xmp_name)
    if not found:
        found = _iptc(image).get(iptc_tag)
    if not found:
        found = image.info.get(keyword)
    return credit_text(found)


def credit_text(value: Any) -> str | None:
    """Return a name or notice as one line of printable characters, or None if the value has none."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    # EXIF strings are UTF-8 in practice; the standard requires ASCII, and Pillow decodes Latin-1.
    with contextlib.suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    text = "".join(char if char.isprintable() else " " for char in value).strip()
    return text[:_LONGEST_CREDIT] or None


def _iptc(image: Image.Image) -> dict[tuple[int, int], Any]:
    if not isinstance(image, JpegImagePlugin.JpegImageFile | TiffImagePlugin.TiffImageFile):
        return {}
    if "photoshop" not in image.info and "adobe" not in image.info and not hasattr(image, "tag_v2"):
        return {}
    try:
        return IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # noqa: BLE001 - damaged IPTC is dropped
        return {}


def _text_chunks(image: Image.Image) -> tuple[tuple[str, str], ...]:
    chunks = ((keyword, image.info.get(keyword)) for keyword in _PNG_KEYWORDS)
    return tuple((keyword, str(text)[:_LONGEST_PACKET]) for keyword, text in chunks if isinstance(text, str) and text)


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 <= x <= 100_000 and 1 <= y <= 100_000):
        return None
    return (y, x) if orientation >= 5 else (x, y)


# XMP

_NAMESPACES: Final = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}
_DROPPED_NAMES: Final = (
    "{http://ns.adobe.com/exif/1.0/}GPS",
    "{http://ns.adobe.com/tiff/1.0/}Orientation",
    "{http://ns.adobe.com/tiff/1.0/}ImageWidth",
    "{http://ns.adobe.com/tiff/1.0/}ImageLength",
    "{http://ns.adobe.com/exif/1.0/}PixelXDimension",
    "{http://ns.adobe.com/exif/1.0/}PixelYDimension",
    "{http://ns.adobe.com/xap/1.0/}Thumbnails",
    "{http://ns.adobe.com/xap/1.0/g/img/}",
    "{http://ns.adobe.com/photoshop/1.0/}ICCProfile",
    "{http://ns.google.com/photos/",
)
_PACKET_START: Final = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_PACKET_END: Final = b'<?xpacket end="r"?>'

for _prefix, _uri in _NAMESPACES.items():
    ElementTree.register_namespace(_prefix, _uri)


@dataclass(frozen=True)
class XmpPacket:
    """An XMP packet without the properties that are not kept."""

    data: bytes
    """The serialised packet."""

    credits: dict[str, str]
    """The texts of ``dc:creator`` and ``dc:rights`` under ``creator`` and ``rights``, as far as they exist."""


def clean_xmp(data: bytes) -> XmpPacket | None:
    """Return an XMP packet without location, previews and orientation; None if it is damaged or declares entities."""
    body = data.strip(b"\x00 \t\r\n")
    if not body or b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return None
    try:
        root = ElementTree.fromstring(body)
        _drop_private(root)
        credits = {name: _text_of(root, name) for name in ("creator", "rights")}
        return XmpPacket(
            _PACKET_START + ElementTree.tostring(root) + _PACKET_END, {k: v for k, v in credits.items() if v}
        )
    except (ElementTree.ParseError, RecursionError, ValueError, LookupError):
        return None


def _drop_private(element: ElementTree.Element) -> None:
    for name in [name for name in element.attrib if name.startswith(_DROPPED_NAMES)]:
        del element.attrib[name]
    for child in list(element):
        if isinstance(child.tag, str) and child.tag.startswith(_DROPPED_NAMES):
            element.remove(child)
        else:
            _drop_private(child)


def _text_of(root: ElementTree.Element, name: str) -> str:
    """Return the text of a Dublin Core property; the first entry if the property is a list."""
    tag = f"{{{_NAMESPACES['dc']}}}{name}"
    for element in root.iter():
        if element.tag == tag:
            entries = [text.strip() for text in element.itertext() if text.strip()]
            return entries[0] if entries else ""
        if tag in element.attrib:
            return element.attrib[tag].strip()
    return ""
