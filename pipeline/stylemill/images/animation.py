"""Frames and pages of a file: counting them, and decoding all frames of an animation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from stylemill.errors import ImageError
from stylemill.images.formats.gif_frames import composed_frames
from stylemill.images.formats.iso_boxes import Box
from stylemill.images.formats.zero_runs import check_smooth_areas
from stylemill.images.hdr import HdrSignal
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import Pixels, apply_orientation, convert
from stylemill.images.source_image import Frame

ANIMATED: Final = ("gif", "webp", "png", "avif")
"""Formats whose animations are decoded and encoded."""

_NUM_PICTURES: Final = 0xB001  # tag in the index of a multi-picture JPEG
_PAGED: Final = {
    "tiff": "pages",
    "jpeg": "pictures",
    "gif": "frames",
    "webp": "frames",
    "png": "frames",
    "avif": "frames",
}


def count_frames(image: ImageFile.ImageFile, image_format: str) -> int:
    """Return the number of frames or pages; 1 if they cannot be counted."""
    if image_format not in _PAGED:
        return 1
    try:
        if image_format == "jpeg":
            return _count_pictures(image)
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - the first frame may be intact
        return 1


def _count_pictures(image: ImageFile.ImageFile) -> int:
    """Count the pictures of a multi-picture JPEG (MPO): a stereo pair, a preview, the gain map of a phone."""
    if "mp" not in image.info or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 1
    index = image._getmp()
    return int(index[_NUM_PICTURES]) if index else 1


def first_frame_note(num_frames: int, image_format: str) -> str | None:
    """Return the note that only the first of several frames or pages was decoded, or None if there is only one."""
    return f"first of {num_frames} {_PAGED[image_format]}" if num_frames > 1 else None


def read_frames(
    data: bytes,
    image: ImageFile.ImageFile,
    num_frames: int,
    orientation: int,
    profile: bytes | HdrSignal | None,
    shown: Box | None,
    options: DecodeOptions,
) -> tuple[Frame, ...]:
    """Decode all frames of an animation, each as displayed.

    Args:
        data: the whole file.
        image: opened by its plugin.
        num_frames: from ``count_frames``.
        orientation: EXIF orientation of all frames.
        profile: as for ``convert``.
        shown: the part of each frame that is shown, before the orientation is applied; None: all of it.
        options: ``max_pixels`` limits the sum of the pixels of all frames.

    Returns:
        The frames; without alpha if every pixel of every frame is opaque.

    Raises:
        ImageError: ``TooManyPixels``.
    """
    # An animated PNG may start with an image for viewers without animation, which is not a frame.
    first = 1 if getattr(image, "default_image", False) and num_frames > 1 else 0
    width_px, height_px = image.size
    num_pixels = width_px * height_px * (num_frames - first)
    if num_pixels > options.max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{num_frames - first} frames of {width_px} x {height_px} px are {num_pixels:,} px, more than "
            f"max_pixels = {options.max_pixels:,}; repaint the first frame only with --animation first",
        )
    pictures: Iterator[tuple[Image.Image, object]]
    if image.format == "GIF":
        pictures = composed_frames(data, image.size, options.max_pixels)
    else:
        pictures = _pictures(image, first, num_frames)
    frames = []
    for number, (picture, duration) in enumerate(itertools.islice(pictures, num_frames - first)):
        if image.format == "WEBP":
            check_smooth_areas(data, picture, number)
        part = picture.crop(shown) if shown else picture
        frames.append(_frame(convert(part, profile), duration, orientation))
    if all(frame.alpha_HW is None or (frame.alpha_HW == 255).all() for frame in frames):
        return tuple(Frame(image_HWC=f.image_HWC, duration_ms=f.duration_ms) for f in frames)
    return tuple(frames)


def _pictures(image: ImageFile.ImageFile, first: int, num_frames: int) -> Iterator[tuple[Image.Image, object]]:
    """Yield the frames that Pillow composes, and their durations in milliseconds."""
    for index in range(first, num_frames):
        image.seek(index)
        image.load()
        # Samples of 16 bits are scaled by `convert`; Pillow would clip them.
        is_deep = image.mode.startswith("I")
        is_opaque = image.mode == "RGB" and "transparency" not in image.info
        picture = image.copy() if is_deep or is_opaque else image.convert("RGBA")
        if not is_deep:
            picture.info.pop("transparency", None)
        yield picture, image.info.get("duration", 0)


def _frame(pixels: Pixels, duration: object, orientation: int) -> Frame:
    alpha_HW = pixels.alpha_HW
    if alpha_HW is None:
        alpha_HW = np.full(pixels.image_HWC.shape[:2], 255, np.uint8)
    return Frame(
        image_HWC=apply_orientation(pixels.image_HWC, orientation),
        alpha_HW=apply_orientation(alpha_HW, orientation),
        duration_ms=round(float(duration)) if isinstance(duration, int | float) else 0,
    )
