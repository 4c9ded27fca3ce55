"""Decode the bytes of any image file to upright 8-bit sRGB, or raise an error with a type and a reason.

``decode`` recognises the format by content, checks the limits, opens the file with the Pillow plugin of its format,
refuses what is damaged and converts the pixels. What Pillow does not read, or reads differently from other programs, is
in ``formats``: JPEG is decoded by ``formats.jpeg``, unusual TIFF layouts by ``tiff_page``. ``failures.classify`` maps
whatever a plugin raises to an ``error_type`` of the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from stylemill.errors import ImageError
from stylemill.images.animation import ANIMATED, count_frames, first_frame_note, read_frames
from stylemill.images.failures import classify
from stylemill.images.formats import jpeg, png_checksums, tiff_layout
from stylemill.images.formats.alpha16 import rawmode_of, read_alpha16
from stylemill.images.formats.damage import check_decoded, check_stored
from stylemill.images.formats.gif_frames import painted_box, transparent_outside
from stylemill.images.formats.iso_boxes import Box, PictureProperties, read_properties
from stylemill.images.formats.jp2_channels import arrange, readable
from stylemill.images.formats.jp2_header import Jp2Header, read_jp2
from stylemill.images.formats.non_images import describe_non_image
from stylemill.images.formats.plugins import open_image
from stylemill.images.formats.png_chunks import correct_transparency
from stylemill.images.formats.psd import check_psd, is_bitmap
from stylemill.images.formats.sniff import SNIFF_BYTES, is_lossless, sniff
from stylemill.images.formats.tiff_samples import read_directory
from stylemill.images.formats.xpm import with_plain_colours
from stylemill.images.hdr import HdrSignal
from stylemill.images.metadata import orientation_of, read_metadata
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import Pixels, apply_orientation, check_size, convert, correct_samples
from stylemill.images.profile import is_srgb
from stylemill.images.source_image import Frame, SourceImage
from stylemill.images.stated_colour import stated_colour
from stylemill.images.tiff_page import decode_tiff_page


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
        raise classify(error, data, image_format) from error


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


_CODECS: Final = {"avif": ("", "av01", "grid"), "heif": ("", "hvc1", "hev1", "grid", "iovl", "iden")}
"""Kinds of items that are decoded; empty where a file has no item, but a track."""


@dataclass(kw_only=True, eq=False)
class _Opened:
    """A file that its plugin has opened, and what the plugin does not know about it."""

    data: bytes
    """The file, without what would keep the plugin from reading it."""

    image_format: str
    image: ImageFile.ImageFile
    mode: str
    """Pillow's mode of the file, before it is loaded."""

    rawmode: str | None
    jp2: Jp2Header | None = None
    properties: PictureProperties | None = None
    shown: Box | None = None
    """The part of the stored picture that is shown; None: all of it."""

    painted: Box | None = None
    """The part of a GIF's canvas that its first frame paints; None: all of it."""

    notes: list[str | None] = field(default_factory=list)

    def again(self) -> ImageFile.ImageFile:
        """Open the file once more."""
        return open_image(self.data, self.image_format)


def _decode_opened(data: bytes, image_format: str, options: DecodeOptions) -> SourceImage:
    opened = _open(data, image_format, options)
    if opened is None:
        return decode_tiff_page(data, options)
    image = opened.image
    stored = _load(opened)
    check_size(image.size, options.max_pixels)
    colour = stated_colour(opened.data, image, image_format, opened.properties)
    orientation = orientation_of(image, image_format)
    num_frames = count_frames(image, image_format)
    metadata = read_metadata(image, orientation)
    if stored is not None and opened.mode == "RGB" and _is_srgb(colour.profile):
        pixels = Pixels(image_HWC=stored)
    else:
        pixels = _convert(opened, stored, num_frames, colour.profile)
    image_HWC = apply_orientation(pixels.image_HWC, orientation)
    alpha_HW = None if pixels.alpha_HW is None else apply_orientation(pixels.alpha_HW, orientation)
    frames: tuple[Frame, ...] = ()
    if options.animation == "all" and num_frames > 1 and image_format in ANIMATED:
        frames = read_frames(opened.data, image, num_frames, orientation, colour.profile, opened.shown, options)
        image_HWC, alpha_HW = frames[0].image_HWC, frames[0].alpha_HW
    rest = None if frames else first_frame_note(num_frames, image_format)
    loop = image.info.get("loop")
    return SourceImage(
        image_HWC=image_HWC,
        alpha_HW=alpha_HW,
        frames=frames,
        source_format=image_format,
        source_mode=opened.mode,
        lossless=is_lossless(opened.data, image_format),
        loop=loop if isinstance(loop, int) else None,
        had_profile=bool(colour.profile),
        metadata=metadata,
        notes=tuple(note for note in (rest, *opened.notes, *colour.notes, *pixels.notes) if note),
    )


def _open(data: bytes, image_format: str, options: DecodeOptions) -> _Opened | None:
    """Open a file with the plugin of its format; None for a TIFF file whose samples Pillow does not unpack."""
    notes: list[str | None] = []
    jp2, properties = None, None
    if image_format == "png":
        check_size(png_checksums.stated_size(data) or (1, 1), options.max_pixels)
        data, damaged = png_checksums.checked(data, all_frames=options.animation == "all")
        notes += damaged
    elif image_format == "jpeg2000":
        jp2 = read_jp2(data)
        data = readable(data, jp2) if jp2 else data
    elif image_format == "psd":
        check_psd(data)
    elif image_format == "xpm":
        data = with_plain_colours(data)
    elif image_format == "tiff":
        tags = read_directory(data)
        if not tiff_layout.is_read_by_pillow(tags):
            return None
        notes.append(tiff_layout.ignored_samples_note(tags))
    elif image_format in ("avif", "heif"):
        properties = read_properties(data)
        check_size(properties.size_px or (1, 1), options.max_pixels)
        if properties.codec not in _CODECS[image_format]:
            what = f"pixels of the kind {properties.codec!r} inside"
            raise ImageError("UnsupportedFormat", f"this kind of {image_format.upper()} is not supported ({what})")
    try:
        image = open_image(data, image_format)
    except SyntaxError as error:
        if image_format == "jpeg" and jpeg.read_structure(data).size_px[1] == 0:
            raise ImageError(
                "UnsupportedFormat", "this kind of JPEG is not supported (its height is stored behind the pixels)"
            ) from error
        if image_format != "tiff" or "unknown pixel mode" not in str(error):
            raise
        return None
    check_size(image.size, options.max_pixels)
    opened = _Opened(
        data=data,
        image_format=image_format,
        image=image,
        mode=image.mode,
        rawmode=rawmode_of(image),
        jp2=jp2,
        properties=properties,
        notes=notes,
    )
    _describe(opened)
    return opened


def _describe(opened: _Opened) -> None:
    """Add what the plugin of the format does not report, or reports incorrectly."""
    image, data = opened.image, opened.data
    if opened.jp2 and opened.jp2.profile:
        image.info["icc_profile"] = opened.jp2.profile
    elif opened.properties and opened.image_format == "avif":
        # Libheif cuts out the clean aperture of HEIF files itself.
        opened.shown, note = opened.properties.shown_box(image.size)
        opened.notes.append(note)
    elif opened.image_format == "gif":
        opened.painted = painted_box(image)
    elif opened.image_format == "png":
        correct_transparency(image, data)


def _load(opened: _Opened) -> np.ndarray | None:
    """Decode the pixels of an opened file, or refuse it if it is damaged.

    Returns:
        The samples of a JPEG file as stored, or None if Pillow has decoded the pixels.
    """
    image, data, image_format = opened.image, opened.data, opened.image_format
    check_stored(data, image, image_format)
    if image_format == "jpeg":
        stored = jpeg.read_pixels(data, image.mode)
        if stored is not None:
            if stored.shape[:2] != image.size[::-1]:
                raise ImageError("Corrupt", "the JPEG data is damaged: its size is not that in its header")
            return stored
        opened.notes.append("its colour subsampling is unusual, so that its data could not be checked for damage")
    try:
        image.load()
    except OSError as error:
        unsupported = tiff_layout.unsupported_compression(getattr(image, "tag_v2", {}))
        if unsupported is None:
            raise
        raise unsupported from error
    check_decoded(data, image, image_format)
    return None


def _convert(opened: _Opened, stored: np.ndarray | None, num_frames: int, profile: bytes | HdrSignal | None) -> Pixels:
    """Convert the pixels of a loaded file to sRGB and alpha."""
    image = opened.image
    if stored is not None:
        picture: Image.Image = jpeg.as_picture(stored, image.mode)
    else:
        picture = image if num_frames == 1 else image.copy()
    if opened.shown:
        picture = picture.crop(opened.shown)
    picture.info = dict(image.info)
    if opened.jp2:
        picture, note = arrange(picture, opened.jp2, opened.data, partial(open_image, image_format="jpeg2000"))
        opened.notes.append(note)
    if opened.image_format == "psd" and is_bitmap(opened.data):
        picture = picture.point(lambda value: 255 - value)
    alpha_HW = read_alpha16(picture, opened.rawmode, opened.again)
    correct_samples(picture, image, opened.image_format)
    pixels = convert(picture, profile)
    if alpha_HW is not None:
        pixels.alpha_HW = alpha_HW
    if opened.painted:
        pixels.alpha_HW = transparent_outside(opened.painted, image.size, pixels.alpha_HW)
    return pixels


def _is_srgb(profile: bytes | HdrSignal | None) -> bool:
    return profile is None or (isinstance(profile, bytes) and is_srgb(profile))
