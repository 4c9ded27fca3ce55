"""Bytes of any image to upright 8-bit sRGB, or a typed reason why not."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from stylemill.errors import ImageError
from stylemill.images.animation import ANIMATED, count_frames, note_on_rest, read_frames
from stylemill.images.formats.non_images import describe, is_cut_off
from stylemill.images.formats.plugins import open_image
from stylemill.images.formats.sixteen_bits import deep_alpha, rawmode_of
from stylemill.images.formats.sniff import SNIFF_BYTES, is_lossless, sniff
from stylemill.images.formats.tiff_samples import read_directory, read_samples
from stylemill.images.metadata import credit_text, orientation_of, read_metadata
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import alpha_bits, convert, straighten, to_eight_bits, upright
from stylemill.images.source_image import Frame, Metadata, SourceImage


def decode(data: bytes, options: DecodeOptions) -> SourceImage:
    """Decode one source in this process.

    What the bytes are is judged by their content alone. For bytes from strangers use ``IsolatedDecoder``.

    Args:
        data: the whole file.
        options: limits, and which frames are wanted.

    Raises:
        ImageError: this image cannot be done: ``EmptyFile``, ``TooLarge``, ``TooManyPixels``, ``Truncated``,
            ``Corrupt``, ``UnsupportedFormat``, ``DecoderMemory``.
        NotAnImage: the bytes are no image: ``Html``, ``Text``, ``Archive``, ``UnknownContent`` ...
    """
    image_format = recognise(data, options)
    try:
        return _decode_opened(data, image_format, options)
    except ImageError:
        raise
    except KeyError as error:
        raise ImageError("Corrupt", f"the {image_format.upper()} data is damaged: entry {error} is missing") from error
    except MemoryError as error:
        raise ImageError(
            "DecoderMemory", f"decoding this {image_format.upper()} took more memory than allowed"
        ) from error
    except Exception as error:
        # Whatever a plugin raises on hostile bytes is this image's fault.
        raise _typed(error, data, image_format) from error


def recognise(data: bytes, options: DecodeOptions) -> str:
    """Return the format of a file by its content, after the checks that need no decoder.

    Raises:
        ImageError: ``EmptyFile`` or ``TooLarge``.
        NotAnImage: no image format.
    """
    if not data:
        raise ImageError("EmptyFile", "the file is empty: it has 0 bytes")
    if len(data) > options.max_source_bytes:
        raise ImageError(
            "TooLarge", f"{len(data):,} bytes are more than max_source_bytes = {options.max_source_bytes:,}"
        )
    image_format = sniff(data[:SNIFF_BYTES])
    if image_format is None:
        raise describe(data)
    return image_format


def _check_pixels(size: tuple[int, int], options: DecodeOptions) -> None:
    width_px, height_px = size
    if width_px <= 0 or height_px <= 0:
        raise ImageError("Corrupt", f"its header says {width_px} x {height_px} px, which is no picture")
    if width_px * height_px > options.max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{width_px} x {height_px} = {width_px * height_px:,} px are more than max_pixels = {options.max_pixels:,}",
        )


def _decode_opened(data: bytes, image_format: str, options: DecodeOptions) -> SourceImage:
    try:
        image = open_image(data, image_format)
    except SyntaxError as error:
        if image_format != "tiff" or "unknown pixel mode" not in str(error):
            raise
        return _decode_plain_tiff(data, options)
    _check_pixels(image.size, options)
    _refuse_previews(image, image_format)
    rawmode = rawmode_of(image)
    source_mode = image.mode
    _load(image, image_format)
    _check_pixels(image.size, options)
    orientation = orientation_of(image, image_format)
    profile = image.info.get("icc_profile")
    num_frames = count_frames(image, image_format)
    picture: Image.Image = image if num_frames == 1 else image.copy()
    picture.info = dict(image.info)
    metadata = read_metadata(image, orientation)
    alpha_HW = deep_alpha(picture, rawmode, lambda: open_image(data, image_format))
    straighten(picture, image, image_format)
    pixels = convert(picture, profile)
    if alpha_HW is None:
        alpha_HW = pixels.alpha_HW
    image_HWC = upright(pixels.image_HWC, orientation)
    alpha_HW = None if alpha_HW is None else upright(alpha_HW, orientation)
    frames: tuple[Frame, ...] = ()
    if options.animation == "all" and num_frames > 1 and image_format in ANIMATED:
        frames = read_frames(image, num_frames, orientation, options)
        image_HWC, alpha_HW = frames[0].image_HWC, frames[0].alpha_HW
    rest = None if frames else note_on_rest(num_frames, image_format)
    loop = image.info.get("loop")
    return SourceImage(
        image_HWC=image_HWC,
        alpha_HW=alpha_HW,
        frames=frames,
        source_format=image_format,
        source_mode=source_mode,
        lossless=is_lossless(data, image_format),
        loop=loop if isinstance(loop, int) else None,
        had_profile=bool(profile),
        metadata=metadata,
        notes=tuple(note for note in (rest, *pixels.notes) if note),
    )


def _decode_plain_tiff(data: bytes, options: DecodeOptions) -> SourceImage:
    """Decode a TIFF of samples that Pillow does not unpack."""
    tags = read_directory(data)
    _check_pixels((int(tags.get(256, 0)), int(tags.get(257, 0))), options)
    page = read_samples(data, tags)
    scaled_HWC, note = to_eight_bits(page.samples_HWC)
    picture = Image.fromarray(scaled_HWC[..., 0] if scaled_HWC.shape[2] == 1 else np.ascontiguousarray(scaled_HWC))
    profile = tags.get(_ICC_PROFILE)
    pixels = convert(picture, profile if isinstance(profile, bytes) else None)
    orientation = tags.get(_ORIENTATION, 1)
    alpha_HW = None if page.alpha_HW is None else alpha_bits(page.alpha_HW)
    return SourceImage(
        image_HWC=upright(pixels.image_HWC, orientation),
        alpha_HW=None if alpha_HW is None else upright(alpha_HW, orientation),
        source_format="tiff",
        source_mode=f"{page.samples_HWC.dtype}x{tags.get(_NUM_SAMPLES, 1)}",
        lossless=True,
        had_profile=bool(profile),
        metadata=Metadata(artist=credit_text(tags.get(_ARTIST)), copyright=credit_text(tags.get(_COPYRIGHT))),
        notes=tuple(text for text in (note, *pixels.notes) if text),
    )


_ICC_PROFILE: Final = 34675
_ORIENTATION: Final = 274
_NUM_SAMPLES: Final = 277
_ARTIST: Final = 315
_COPYRIGHT: Final = 33432


def _load(image: ImageFile.ImageFile, image_format: str) -> None:
    try:
        image.load()
    except OSError as error:
        tags = getattr(image, "tag_v2", {}) if image_format == "tiff" else {}
        compression = _UNREAD_COMPRESSIONS.get(tags.get(_COMPRESSION, 0))
        if compression is None:
            raise
        raise ImageError(
            "UnsupportedFormat", f"its pixels are {compression} inside a TIFF, which is not read; convert it first"
        ) from error


_COMPRESSION: Final = 259
_UNREAD_COMPRESSIONS: Final = {
    34661: "JBIG",
    34887: "LERC",
    34712: "JPEG 2000",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def _refuse_previews(image: Image.Image, image_format: str) -> None:
    """Refuse camera raw files in TIFF clothes: their first page is a small preview, not the picture."""
    tags = getattr(image, "tag_v2", {}) if image_format == "tiff" else {}
    if _DNG_VERSION in tags or (_SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE) == 1):
        raise ImageError("UnsupportedFormat", "it is a camera raw file, which is not read; develop it first")


_DNG_VERSION: Final = 50706
_SUB_IFDS: Final = 330
_NEW_SUBFILE_TYPE: Final = 254

_TRUNCATED: Final = re.compile(
    r"truncat|not enough (?:image )?data|unexpected end|end of (?:file|stream|data)"
    r"|buffer is not large enough|requires a buffer|unpack requires|bytes not processed"
    r"|no more|premature|index out of range",
    re.IGNORECASE,
)
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not supported|unknown (?:pixel|image|data|raw) ?mode|cannot (?:handle|decode)"
    r"|not (?:yet )?implemented|decoder .* not available"
    r"|unknown (?:compression|data organization)",
    re.IGNORECASE,
)


_LIBTIFF_ERROR: Final = re.compile(r"^decoder error -\d+$")


def _typed(error: Exception, data: bytes, image_format: str) -> ImageError:
    """Turn what a plugin raised into a type and a sentence."""
    text = "".join(char if char.isprintable() else " " for char in str(error)[:300])
    text = _LIBTIFF_ERROR.sub("its pixels could not be decoded", text)
    text = text.replace("not identified by this driver", "its header makes no sense")
    name = image_format.upper()
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("TooManyPixels", text)
    if isinstance(error, EOFError) or _TRUNCATED.search(text):
        return ImageError("Truncated", f"the {name} data ends too early or is cut off inside ({text or 'end of file'})")
    if isinstance(error, NotImplementedError) or (_UNSUPPORTED.search(text) and not isinstance(error, TypeError)):
        return ImageError("UnsupportedFormat", f"this kind of {name} is not read ({text})")
    if is_cut_off(data, image_format):
        return ImageError("Truncated", f"the {name} data is cut off: its end is not there ({text})")
    detail = text if not isinstance(error, KeyError | IndexError | AttributeError | AssertionError | TypeError) else ""
    return ImageError(
        "Corrupt", f"the {name} data is damaged ({type(error).__name__}{': ' + detail if detail else ''})"
    )
