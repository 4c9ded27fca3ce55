"""Repainted pixels to a file that keeps what must survive."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, PngImagePlugin

from pipeline.images.options import EncodeOptions
from pipeline.images.profile import srgb_profile
from pipeline.images.source_image import SourceImage

_WRITTEN: Final = {
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
_WITHOUT_ALPHA: Final = ("jpeg", "bmp", "ppm")


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """A file ready to be written."""

    data: bytes
    """The file."""

    format: str
    """``jpeg``, ``png`` ...; see ``output_key.SUFFIXES``."""

    width_px: int
    """Width of the picture in it."""

    height_px: int
    """Height of the picture in it."""

    notes: tuple[str, ...] = ()
    """Sentences for the manifest row: what it became, what was lost."""


def output_format(source: SourceImage, options: EncodeOptions) -> str:
    """Return the format in which the result for this source is written."""
    return output_format_of(source.source_format, has_alpha=source.alpha_HW is not None, options=options)


def output_format_of(source_format: str, *, has_alpha: bool, options: EncodeOptions) -> str:
    """Return the format in which a result is written.

    ``same`` keeps what can be written; HEIF becomes JPEG (PNG with alpha), everything else PNG.
    """
    if options.format != "same":
        return options.format
    if source_format in _WRITTEN:
        return source_format
    return "jpeg" if source_format == "heif" and not has_alpha else "png"


def encode(image_HWC: np.ndarray, source: SourceImage, options: EncodeOptions) -> EncodedImage:
    """Write a result.

    Args:
        image_HWC: (H, W, 3) uint8 sRGB; of the source's size, or smaller (alpha is scaled along).
        source: where the result comes from: its format, alpha and metadata.
        options: format, quality, what metadata is kept.

    Raises:
        ImageError: ``EncodeFailed``: the container cannot hold the picture (a WebP is at most 16383 px wide).
    """
    name = output_format(source, options)
    notes = []
    if options.format == "same" and name != source.source_format:
        notes.append(f"written as {name.upper()} because {source.source_format.upper()} is not written")
    height_px, width_px = image_HWC.shape[:2]
    picture = _with_alpha(image_HWC, source, name, notes)
    buffer = io.BytesIO()
    picture.save(buffer, _WRITTEN[name], **_parameters(name, source, options))
    return EncodedImage(
        data=buffer.getvalue(), format=name, width_px=width_px, height_px=height_px, notes=tuple(notes)
    )


def _with_alpha(image_HWC: np.ndarray, source: SourceImage, name: str, notes: list[str]) -> Image.Image:
    alpha_HW = source.alpha_HW
    if alpha_HW is None:
        return Image.fromarray(image_HWC)
    if alpha_HW.dtype == np.uint16:
        alpha_HW = (alpha_HW >> 8).astype(np.uint8)
    alpha = Image.fromarray(alpha_HW)
    if alpha_HW.shape != image_HWC.shape[:2]:
        alpha = alpha.resize((image_HWC.shape[1], image_HWC.shape[0]), Image.Resampling.LANCZOS)
    picture = Image.fromarray(image_HWC)
    if name in _WITHOUT_ALPHA:
        notes.append(f"laid on white because {name.upper()} has no alpha")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=alpha)
        return white
    picture.putalpha(alpha)
    return picture


def _parameters(name: str, source: SourceImage, options: EncodeOptions) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if source.had_profile and name in ("jpeg", "webp", "tiff", "avif"):
        parameters["icc_profile"] = srgb_profile()
    if source.metadata.dpi and name in ("jpeg", "png", "tiff", "bmp"):
        parameters["dpi"] = source.metadata.dpi
    if name in ("jpeg", "avif", "webp"):
        parameters["quality"] = options.quality
    if name == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\x00")
        parameters |= {"pnginfo": chunks, "compress_level": 6}
    if name == "tiff":
        parameters["compression"] = "tiff_adobe_deflate"
    return parameters
