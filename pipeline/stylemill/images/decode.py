"""Decode the bytes of any image file to upright 8-bit sRGB, or raise an error with a type and a reason.

``decode`` recognises the format by content, checks the limits, opens the file with the Pillow plugin of its format and
converts the pixels. TIFF samples that Pillow does not unpack are read by ``formats.tiff_samples``. ``_classify`` maps
whatever a plugin raises to an ``error_type`` of the manifest.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from stylemill.errors import ImageError
from stylemill.images.animation import ANIMATED, count_frames, first_frame_note, read_frames
from stylemill.images.formats.alpha16 import rawmode_of, read_alpha16
from stylemill.images.formats.gif_frames import painted_box, transparent_outside
from stylemill.images.formats.iso_boxes import read_properties
from stylemill.images.formats.jp2_channels import arrange, readable
from stylemill.images.formats.jp2_header import read_jp2
from stylemill.images.formats.non_images import describe_non_image
from stylemill.images.formats.plugins import open_image
from stylemill.images.formats.png_chunks import correct_transparency
from stylemill.images.formats.sniff import SNIFF_BYTES, is_lossless, is_truncated, sniff
from stylemill.images.formats.tiff_samples import read_directory, read_samples
from stylemill.images.metadata import credit_text, orientation_of, read_metadata
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import alpha_to_8_or_16_bits, apply_orientation, convert, correct_samples, scale_to_8_bits
from stylemill.images.source_image import Frame, Metadata, SourceImage
from stylemill.images.stated_colour import stated_colour

# TIFF tags.
_COMPRESSION: Final = 259
_NEW_SUBFILE_TYPE: Final = 254
_ORIENTATION: Final = 274
_NUM_SAMPLES: Final = 277
_ARTIST: Final = 315
_SUB_IFDS: Final = 330
_COPYRIGHT: Final = 33432
_ICC_PROFILE: Final = 34675
_DNG_VERSION: Final = 50706

_UNSUPPORTED_COMPRESSIONS: Final = {
    34661: "JBIG",
    34887: "LERC",
    34712: "JPEG 2000",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}

# Texts in the messages of Pillow's plugins.
_TRUNCATED_TEXT: Final = re.compile(
    r"truncat|not enough (?:image )?data|unexpected end|end of (?:file|stream|data)"
    r"|buffer is not large enough|requires a buffer|unpack requires|bytes not processed"
    r"|no more|premature|index out of range",
    re.IGNORECASE,
)
_UNSUPPORTED_TEXT: Final = re.compile(
    r"unsupported|not supported|unknown (?:pixel|image|data|raw) ?mode|cannot (?:handle|decode)"
    r"|not (?:yet )?implemented|decoder .* not available"
    r"|unknown (?:compression|data organization)",
    re.IGNORECASE,
)
_LIBTIFF_ERROR: Final = re.compile(r"^decoder error -\d+$")


def decode(data: bytes, options: DecodeOptions) -> SourceImage:
    """Decode one source in this process.

    Use ``IsolatedDecoder`` for untrusted bytes.

    Args:
        data: the whole file.
        options: limits, and which frames are decoded.

    Raises:
        ImageError: the image cannot be decoded: ``EmptyFile``, ``TooLarge``, ``TooManyPixels``, ``Truncated``,
            ``Corrupt``, ``UnsupportedFormat``, ``DecoderMemory``.
        NotAnImage: the bytes are not an image: ``Html``, ``Text``, ``Archive``, ``UnknownContent`` ...
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
        # Hostile bytes can make a plugin raise anything; the error concerns this image only.
        raise _classify(error, data, image_format) from error


def recognise(data: bytes, options: DecodeOptions) -> str:
    """Return the format of a file by its content, after the checks that need no decoder.

    Args:
        data: the whole file.
        options: ``max_source_bytes`` is checked.

    Raises:
        ImageError: ``EmptyFile`` or ``TooLarge``.
        NotAnImage: the bytes are not an image.
    """
    if not data:
        raise ImageError("EmptyFile", "the file is empty: it has 0 bytes")
    if len(data) > options.max_source_bytes:
        raise ImageError(
            "TooLarge", f"{len(data):,} bytes are more than max_source_bytes = {options.max_source_bytes:,}"
        )
    image_format = sniff(data[:SNIFF_BYTES])
    if image_format is None:
        raise describe_non_image(data)
    return image_format


def _check_pixels(size: tuple[int, int], options: DecodeOptions) -> None:
    width_px, height_px = size
    if width_px <= 0 or height_px <= 0:
        raise ImageError("Corrupt", f"its header gives {width_px} x {height_px} px, which is not a valid size")
    if width_px * height_px > options.max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{width_px} x {height_px} = {width_px * height_px:,} px are more than max_pixels = {options.max_pixels:,}",
        )


def _decode_opened(data: bytes, image_format: str, options: DecodeOptions) -> SourceImage:
    jp2 = read_jp2(data) if image_format == "jpeg2000" else None
    if jp2:
        data = readable(data, jp2)
    try:
        image = open_image(data, image_format)
    except SyntaxError as error:
        if image_format != "tiff" or "unknown pixel mode" not in str(error):
            raise
        return _decode_tiff_samples(data, options)
    _check_pixels(image.size, options)
    _refuse_camera_raw(image, image_format)
    if jp2 and jp2.profile:
        image.info["icc_profile"] = jp2.profile
    rawmode = rawmode_of(image)
    source_mode = image.mode
    properties = read_properties(data) if image_format in ("avif", "heif") else None
    # Libheif cuts out the clean aperture of HEIF files itself.
    shown, shown_note = properties.shown_box(image.size) if properties and image_format == "avif" else (None, None)
    painted = painted_box(image) if image_format == "gif" else None
    if image_format == "png":
        correct_transparency(image, data)
    _load(image, image_format)
    _check_pixels(image.size, options)
    colour = stated_colour(data, image, image_format, properties)
    orientation = orientation_of(image, image_format)
    num_frames = count_frames(image, image_format)
    picture: Image.Image = image if num_frames == 1 else image.copy()
    if shown:
        picture = picture.crop(shown)
    picture.info = dict(image.info)
    jp2_note = None
    if jp2:
        picture, jp2_note = arrange(picture, jp2, data, partial(open_image, image_format=image_format))
    metadata = read_metadata(image, orientation)
    alpha_HW = read_alpha16(picture, rawmode, lambda: open_image(data, image_format))
    correct_samples(picture, image, image_format)
    pixels = convert(picture, colour.profile)
    if alpha_HW is None:
        alpha_HW = pixels.alpha_HW
    if painted:
        alpha_HW = transparent_outside(painted, image.size, alpha_HW)
    image_HWC = apply_orientation(pixels.image_HWC, orientation)
    alpha_HW = None if alpha_HW is None else apply_orientation(alpha_HW, orientation)
    frames: tuple[Frame, ...] = ()
    if options.animation == "all" and num_frames > 1 and image_format in ANIMATED:
        frames = read_frames(data, image, num_frames, orientation, colour.profile, shown, options)
        image_HWC, alpha_HW = frames[0].image_HWC, frames[0].alpha_HW
    rest = None if frames else first_frame_note(num_frames, image_format)
    loop = image.info.get("loop")
    return SourceImage(
        image_HWC=image_HWC,
        alpha_HW=alpha_HW,
        frames=frames,
        source_format=image_format,
        source_mode=source_mode,
        lossless=is_lossless(data, image_format),
        loop=loop if isinstance(loop, int) else None,
        had_profile=bool(colour.profile),
        metadata=metadata,
        notes=tuple(note for note in (rest, shown_note, jp2_note, *colour.notes, *pixels.notes) if note),
    )


def _decode_tiff_samples(data: bytes, options: DecodeOptions) -> SourceImage:
    """Decode the first page of a TIFF file whose samples Pillow does not unpack."""
    tags = read_directory(data)
    _check_pixels((int(tags.get(256, 0)), int(tags.get(257, 0))), options)
    page = read_samples(data, tags)
    scaled_HWC, note = scale_to_8_bits(page.samples_HWC)
    picture = Image.fromarray(scaled_HWC[..., 0] if scaled_HWC.shape[2] == 1 else np.ascontiguousarray(scaled_HWC))
    profile = tags.get(_ICC_PROFILE)
    pixels = convert(picture, profile if isinstance(profile, bytes) else None)
    orientation = tags.get(_ORIENTATION, 1)
    alpha_HW = None if page.alpha_HW is None else alpha_to_8_or_16_bits(page.alpha_HW)
    return SourceImage(
        image_HWC=apply_orientation(pixels.image_HWC, orientation),
        alpha_HW=None if alpha_HW is None else apply_orientation(alpha_HW, orientation),
        source_format="tiff",
        source_mode=f"{page.samples_HWC.dtype}x{tags.get(_NUM_SAMPLES, 1)}",
        lossless=True,
        had_profile=bool(profile),
        metadata=Metadata(artist=credit_text(tags.get(_ARTIST)), copyright=credit_text(tags.get(_COPYRIGHT))),
        notes=tuple(text for text in (note, *pixels.notes) if text),
    )


def _load(image: ImageFile.ImageFile, image_format: str) -> None:
    try:
        image.load()
    except OSError as error:
        tags = getattr(image, "tag_v2", {}) if image_format == "tiff" else {}
        compression = _UNSUPPORTED_COMPRESSIONS.get(tags.get(_COMPRESSION, 0))
        if compression is None:
            raise
        raise ImageError(
            "UnsupportedFormat", f"its pixels are {compression} inside a TIFF, which is not supported; convert it first"
        ) from error


def _refuse_camera_raw(image: Image.Image, image_format: str) -> None:
    """Refuse camera raw files in TIFF containers: their first page is a small preview."""
    tags = getattr(image, "tag_v2", {}) if image_format == "tiff" else {}
    if _DNG_VERSION in tags or (_SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE) == 1):
        raise ImageError("UnsupportedFormat", "it is a camera raw file, which is not supported; develop it first")


def _classify(error: Exception, data: bytes, image_format: str) -> ImageError:
    """Return the ``ImageError`` for an exception of a plugin."""
    text = "".join(char if char.isprintable() else " " for char in str(error)[:300])
    text = _LIBTIFF_ERROR.sub("its pixels could not be decoded", text)
    text = text.replace("not identified by this driver", "its header is invalid")
    name = image_format.upper()
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("TooManyPixels", text)
    if isinstance(error, EOFError) or _TRUNCATED_TEXT.search(text):
        return ImageError("Truncated", f"the {name} data ends too early or is cut off inside ({text or 'end of file'})")
    if isinstance(error, NotImplementedError) or (_UNSUPPORTED_TEXT.search(text) and not isinstance(error, TypeError)):
        return ImageError("UnsupportedFormat", f"this kind of {name} is not supported ({text})")
    if is_truncated(data, image_format):
        return ImageError("Truncated", f"the {name} data is cut off: its end is not there ({text})")
    detail = text if not isinstance(error, KeyError | IndexError | AttributeError | AssertionError | TypeError) else ""
    return ImageError(
        "Corrupt", f"the {name} data is damaged ({type(error).__name__}{': ' + detail if detail else ''})"
    )
