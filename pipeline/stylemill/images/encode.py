"""Encode repainted pixels to a file with the alpha, timing and metadata of its source.

``output_format_of`` chooses the format and ``containers`` the arguments of Pillow's writers. GIF results are reduced to
256 colours here; PNG results with 16-bit alpha are written by ``formats.alpha16``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images import containers
from stylemill.images.animation import ANIMATED
from stylemill.images.controls import resize
from stylemill.images.formats.alpha16 import write_png16
from stylemill.images.options import EncodeOptions
from stylemill.images.pixels import alpha_to_8_bits, flatten_on_white
from stylemill.images.source_image import SourceImage

_WITHOUT_ALPHA: Final = ("jpeg", "bmp", "ppm")


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An encoded image file, ready to be written."""

    data: bytes
    """The content of the file."""

    format: str
    """``jpeg``, ``png`` ...; one of ``options.SUFFIXES``."""

    width_px: int
    """Width of the image."""

    height_px: int
    """Height of the image."""

    notes: tuple[str, ...] = ()
    """Sentences for the manifest row: what was changed or lost."""


def output_format_of(source_format: str, *, has_alpha: bool, options: EncodeOptions) -> str:
    """Return the format in which a result is written.

    ``same`` keeps the source's format if the result can be written in it. Otherwise HEIF without alpha becomes JPEG,
    and all other sources, including BMP with alpha, become PNG.
    """
    if options.format != "same":
        return options.format
    if source_format == "bmp" and has_alpha:
        return "png"  # Pillow writes BMP without alpha
    if source_format in containers.PILLOW_NAMES:
        return source_format
    return "jpeg" if source_format == "heif" and not has_alpha else "png"


def encode_painted(frames_HWC: Sequence[np.ndarray], source: SourceImage, options: EncodeOptions) -> EncodedImage:
    """Encode what was painted of a source: all frames of an animation, or its only image.

    Args:
        frames_HWC: (H, W, 3) uint8 sRGB, one for each of ``source.frames``, or one.
        source: gives the format, alpha, timing and metadata.
        options: format, quality, and which metadata is kept.

    Raises:
        ImageError: ``EncodeFailed``: the format cannot hold the image.
    """
    if source.frames:
        return encode_frames(frames_HWC, source, options)
    return encode(frames_HWC[0], source, options)


def encode(image_HWC: np.ndarray, source: SourceImage, options: EncodeOptions) -> EncodedImage:
    """Encode one repainted image.

    The bytes depend on the arguments only.

    Args:
        image_HWC: (H, W, 3) uint8 sRGB; alpha is scaled to its size if that differs from the source's.
        source: gives the format, alpha and metadata.
        options: format, quality, and which metadata is kept.

    Raises:
        ImageError: ``EncodeFailed``: the format cannot hold the image (a WebP is at most 16383 px wide).
    """
    name = output_format_of(source.source_format, has_alpha=source.alpha_HW is not None, options=options)
    notes = _notes_on_format(name, source, options)
    if source.alpha_HW is not None and source.alpha_HW.dtype == np.uint16 and name == "png":
        alpha_HW = resize(source.alpha_HW, image_HWC.shape[1], image_HWC.shape[0])
        data = write_png16(image_HWC, alpha_HW, containers.png_chunks(source, options))
    else:
        picture = _with_alpha(image_HWC, source.alpha_HW, name, notes)
        if name == "gif":
            picture, reduced = _to_palette(picture)
            notes += ["reduced to 256 colours because GIF holds no more"] * reduced
        data = _save(picture, name, containers.save_parameters(name, source, options))
    return _encoded(data, name, image_HWC, source, notes)


def encode_frames(frames_HWC: Sequence[np.ndarray], source: SourceImage, options: EncodeOptions) -> EncodedImage:
    """Encode the repainted frames of an animation with the source's timing, transparency and number of loops.

    A format without animations gets the first frame, with a note.

    Args:
        frames_HWC: one (H, W, 3) uint8 sRGB image for each of ``source.frames``.
        source: the animation.
        options: format, quality, and which metadata is kept.

    Raises:
        ImageError: ``EncodeFailed``: the format cannot hold the animation.
        ValueError: the number of frames differs from the source's.
    """
    if len(frames_HWC) != len(source.frames):
        raise ValueError(f"{len(frames_HWC)} pictures for {len(source.frames)} frames")
    name = output_format_of(source.source_format, has_alpha=source.alpha_HW is not None, options=options)
    if name not in ANIMATED:
        encoded = encode(frames_HWC[0], source, options)
        lost = f"first of {len(frames_HWC)} frames because {name.upper()} holds no animation"
        return EncodedImage(**(vars(encoded) | {"notes": (*encoded.notes, lost)}))
    notes = _notes_on_format(name, source, options)
    pictures = [
        _with_alpha(image_HWC, frame.alpha_HW, name, notes)
        for image_HWC, frame in zip(frames_HWC, source.frames, strict=True)
    ]
    if name == "gif":
        palettes = [_to_palette(picture) for picture in pictures]
        pictures = [picture for picture, _ in palettes]
        notes += ["reduced to 256 colours a frame because GIF holds no more"] * any(reduced for _, reduced in palettes)
    timing = containers.animation_parameters(name, source)
    everything = containers.save_parameters(name, source, options) | timing | {"append_images": pictures[1:]}
    data = _save(pictures[0], name, everything | {"save_all": True})
    return _encoded(data, name, frames_HWC[0], source, notes)


def _notes_on_format(name: str, source: SourceImage, options: EncodeOptions) -> list[str]:
    if options.format == "same" and name != source.source_format:
        return [f"written as {name.upper()} because {source.source_format.upper()} cannot be written"]
    return []


def _encoded(data: bytes, name: str, image_HWC: np.ndarray, source: SourceImage, notes: list[str]) -> EncodedImage:
    height_px, width_px = image_HWC.shape[:2]
    if (width_px, height_px) != (source.width_px, source.height_px):
        notes.append(f"scaled from {source.width_px} x {source.height_px} px")
    return EncodedImage(
        data=data, format=name, width_px=width_px, height_px=height_px, notes=tuple(dict.fromkeys(notes))
    )


def _with_alpha(image_HWC: np.ndarray, alpha_HW: np.ndarray | None, name: str, notes: list[str]) -> Image.Image:
    """Attach alpha exactly as it was, or flatten the image on white where the format has no alpha."""
    picture = Image.fromarray(image_HWC)
    if alpha_HW is None:
        return picture
    if alpha_HW.dtype == np.uint16:
        notes.append(f"alpha reduced from 16 to 8 bits because {name.upper()} is written with 8")
    alpha = Image.fromarray(resize(alpha_to_8_bits(alpha_HW), picture.width, picture.height))
    if name in _WITHOUT_ALPHA:
        if alpha.getextrema() == (255, 255):
            return picture
        notes.append(f"flattened on white because {name.upper()} has no alpha")
        return flatten_on_white(picture, alpha)
    picture.putalpha(alpha)
    return picture


def _save(picture: Image.Image, name: str, parameters: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, containers.PILLOW_NAMES[name], **parameters)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        size = f"{picture.width} x {picture.height} px"
        cure = "choose another --format or a smaller --max-size-px"
        raise ImageError("EncodeFailed", f"{size} could not be written as {name.upper()} ({error}); {cure}") from error
    return buffer.getvalue()


def _to_palette(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Reduce an image to at most 256 colours for GIF; with alpha, one of them is the transparent colour.

    Up to that number, colours are kept exactly; otherwise a palette is chosen by median cut and the image is dithered.
    Alpha below one half becomes transparent, all other alpha opaque.

    Args:
        picture: of mode ``RGB`` or ``RGBA``.

    Returns:
        An image of mode ``P``, and whether colours were lost.
    """
    transparent_HW = None
    if picture.mode == "RGBA":
        transparent_HW = np.asarray(picture.getchannel("A")) < 128
        picture = picture.convert("RGB")
        if not transparent_HW.any():
            transparent_HW = None
    num_colors = 256 if transparent_HW is None else 255
    indices_HW, colors, reduced = _indices(picture, num_colors, transparent_HW)
    if transparent_HW is not None:
        indices_HW = np.where(transparent_HW, np.uint8(len(colors)), indices_HW)
        colors = np.concatenate([colors, np.zeros((1, 3), np.uint8)])
    result = Image.fromarray(indices_HW).convert("P")
    result.putpalette(colors.tobytes())
    if transparent_HW is not None:
        result.info["transparency"] = len(colors) - 1
    return result, reduced


def _indices(
    picture: Image.Image, num_colors: int, hidden_HW: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return (H, W) indices, (N, 3) colours, and whether colours were lost."""
    image_HWC = np.asarray(picture)
    packed_HW = image_HWC[..., 0].astype(np.uint32) << 16 | image_HWC[..., 1].astype(np.uint32) << 8 | image_HWC[..., 2]
    if hidden_HW is not None:
        # Hidden pixels must not use entries of the palette.
        visible = packed_HW[~hidden_HW]
        packed_HW = np.where(hidden_HW, visible[0] if len(visible) else np.uint32(0), packed_HW)
    unique, inverse_HW = np.unique(packed_HW, return_inverse=True)
    if len(unique) <= num_colors:
        colors = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], axis=-1).astype(np.uint8)
        return inverse_HW.reshape(packed_HW.shape).astype(np.uint8), colors, False
    chosen = picture.quantize(num_colors, Image.Quantize.MEDIANCUT)
    dithered = picture.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG)
    colors = np.frombuffer(bytes(chosen.getpalette() or ()), np.uint8).reshape(-1, 3)[:num_colors]
    return np.asarray(dithered), colors, True
