"""The arguments of Pillow's writers for each output format: compression, colour space, timing and metadata."""

from __future__ import annotations

from typing import Any, Final

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from stylemill.images.metadata import exif_value
from stylemill.images.options import EncodeOptions
from stylemill.images.profile import srgb_profile
from stylemill.images.source_image import Metadata, SourceImage

PILLOW_NAMES: Final = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tiff": "TIFF",
    "gif": "GIF",
    "avif": "AVIF",
    "jpeg2000": "JPEG2000",
    "bmp": "BMP",
    "ppm": "PPM",
    "tga": "TGA",
}
"""Output formats and Pillow's names of them."""

_WITH_PROFILE: Final = ("jpeg", "webp", "tiff", "avif")
_WITH_DPI: Final = ("jpeg", "png", "tiff", "bmp")
_WITH_EXIF: Final = ("jpeg", "png", "webp", "avif")
_WITH_XMP: Final = ("jpeg", "webp", "avif")
_XMP_TAG: Final = 700
_LARGEST_JPEG_SEGMENT: Final = 65_000


def save_parameters(name: str, source: SourceImage, options: EncodeOptions) -> dict[str, Any]:
    """Return the keyword arguments of ``Image.save`` for a result in the format ``name``."""
    metadata = source.metadata
    chosen: dict[str, Any] = _compression(name, source, options)
    if source.had_profile and name in _WITH_PROFILE:
        chosen["icc_profile"] = srgb_profile()
    if metadata.dpi and name in _WITH_DPI:
        chosen["dpi"] = metadata.dpi
    if name == "png":
        chosen["pnginfo"] = _png_info(metadata, options)
    exif = _exif(metadata, options)
    if exif and name in _WITH_EXIF and not (name == "jpeg" and len(exif) > _LARGEST_JPEG_SEGMENT):
        chosen["exif"] = exif
    if options.keep_metadata == "all":
        if metadata.xmp and name in _WITH_XMP and not (name == "jpeg" and len(metadata.xmp) > _LARGEST_JPEG_SEGMENT):
            chosen["xmp"] = metadata.xmp
        if metadata.comment and name in ("jpeg", "gif"):
            chosen["comment"] = metadata.comment[:_LARGEST_JPEG_SEGMENT]
    if name == "tiff":
        chosen["tiffinfo"] = _tiff_tags(metadata, exif, options)
    if name in ("gif", "jpeg2000") and "comment" not in chosen and options.keep_metadata != "none":
        credit = ", ".join(part for part in (metadata.artist, metadata.copyright) if part)
        if credit:
            chosen["comment"] = credit.encode()
    return chosen


def animation_parameters(name: str, source: SourceImage) -> dict[str, Any]:
    """Return the keyword arguments of ``Image.save`` for the timing of an animation."""
    chosen: dict[str, Any] = {"duration": [frame.duration_ms for frame in source.frames]}
    if name == "gif":
        # Each frame is cleared before the next one, so that nothing shows through a frame's transparency.
        chosen |= {"disposal": 2, "optimize": False}
        if source.loop is not None:
            chosen["loop"] = source.loop
    elif name in ("webp", "png"):
        chosen["loop"] = 1 if source.loop is None else source.loop
    return chosen


def png_chunks(source: SourceImage, options: EncodeOptions) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the chunks between the header and the pixels of a PNG, in order."""
    chunks = [(kind, data) for kind, data, *_ in _png_info(source.metadata, options).chunks]
    if source.metadata.dpi:
        x, y = (round(per_inch / 0.0254) for per_inch in source.metadata.dpi)
        chunks.append((b"pHYs", x.to_bytes(4, "big") + y.to_bytes(4, "big") + b"\x01"))
    exif = _exif(source.metadata, options)
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\x00\x00")))
    return chunks


def _exif(metadata: Metadata, options: EncodeOptions) -> bytes | None:
    """Return the EXIF block of a result according to ``keep_metadata``; it never contains an orientation."""
    if options.keep_metadata == "none":
        return None
    if options.keep_metadata == "all" and metadata.exif:
        return metadata.exif
    if not (metadata.artist or metadata.copyright):
        return None
    exif = Image.Exif()
    if metadata.artist:
        exif[ExifTags.Base.Artist] = metadata.artist.encode()
    if metadata.copyright:
        exif[ExifTags.Base.Copyright] = metadata.copyright.encode()
    return exif.tobytes()


def _compression(name: str, source: SourceImage, options: EncodeOptions) -> dict[str, Any]:
    quality = options.quality
    if name == "jpeg":
        return {"quality": quality}
    if name == "png":
        return {"compress_level": 3}
    if name == "tiff":
        return {"compression": "tiff_adobe_deflate"}
    if name == "webp":
        # Alpha is kept bit for bit; so are the colours of lossless sources, including those under transparency.
        lossless = source.lossless and source.source_format == "webp"
        return (
            {"lossless": True, "exact": True, "quality": 70}
            if lossless
            else {"quality": quality, "method": 2, "exact": True}
        )
    if name == "avif":
        return {"quality": quality, "speed": 8, "max_threads": 1} | _exact_avif_alpha(source)
    if name == "jpeg2000" and not source.lossless and source.alpha_HW is None:
        return {"irreversible": True, "quality_mode": "dB", "quality_layers": [quality / 2]}
    return {}


def _exact_avif_alpha(source: SourceImage) -> dict[str, Any]:
    return {} if source.alpha_HW is None else {"codec": "aom", "advanced": {"a:lossless": "1"}}


def _png_info(metadata: Metadata, options: EncodeOptions) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\x00")
    if options.keep_metadata == "all":
        for keyword, text in metadata.text:
            chunks.add_itxt(keyword, text)
        if metadata.xmp:
            chunks.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return chunks


def _tiff_tags(metadata: Metadata, exif: bytes | None, options: EncodeOptions) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Return the descriptive tags; Pillow writes those that describe the pixels."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        kept = Image.Exif()
        kept.load(exif)
        for tag, value in kept.items():
            if tag != ExifTags.IFD.Exif:
                tags[tag] = exif_value(value)
    if options.keep_metadata == "all" and metadata.xmp:
        tags[_XMP_TAG] = metadata.xmp
    return tags
