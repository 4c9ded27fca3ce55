"""An XMP packet without the place, the previews and the orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

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
_START: Final = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END: Final = b'<?xpacket end="r"?>'

for _prefix, _uri in _NAMESPACES.items():
    ElementTree.register_namespace(_prefix, _uri)


@dataclass(frozen=True)
class Packet:
    """A cleaned packet."""

    data: bytes
    """The packet, ready to be embedded."""

    credits: dict[str, str]
    """What it says under ``dc:creator`` and ``dc:rights``."""


def clean_xmp(data: bytes) -> Packet | None:
    """Return a packet without what must not survive, or None if it is damaged or declares entities."""
    body = data.strip(b"\x00 \t\r\n")
    if not body or b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return None
    try:
        root = ElementTree.fromstring(body)
        _strip(root)
        credits = {name: _text_of(root, name) for name in ("creator", "rights")}
        return Packet(_START + ElementTree.tostring(root) + _END, {k: v for k, v in credits.items() if v})
    except (ElementTree.ParseError, RecursionError, ValueError, LookupError):
        return None


def _strip(element: ElementTree.Element) -> None:
    for name in [name for name in element.attrib if name.startswith(_DROPPED_NAMES)]:
        del element.attrib[name]
    for child in list(element):
        if isinstance(child.tag, str) and child.tag.startswith(_DROPPED_NAMES):
            element.remove(child)
        else:
            _strip(child)


def _text_of(root: ElementTree.Element, name: str) -> str:
    """Return the text of a Dublin Core property, of its first entry where it is a list."""
    tag = f"{{{_NAMESPACES['dc']}}}{name}"
    for element in root.iter():
        if element.tag == tag:
            entries = [text.strip() for text in element.itertext() if text.strip()]
            return entries[0] if entries else ""
        if tag in element.attrib:
            return element.attrib[tag].strip()
    return ""
