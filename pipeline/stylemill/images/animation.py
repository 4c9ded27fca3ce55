"""Frames and pages: how many there are, and all of them where they are wanted."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import ImageFile, JpegImagePlugin

from stylemill.errors import ImageError
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import Pixels, convert, upright
from stylemill.images.source_image import Frame

ANIMATED: Final = ("gif", "webp", "png", "avif")
_PAGED: Final = {
    "tiff": "pages",
    "jpeg": "pictures",
    "gif": "frames",
    "webp": "frames",
    "png": "frames",
    "avif": "frames",
}


def count_frames(image: ImageFile.ImageFile, image_format: str) -> int:
    """Return the number of frames or pages; what cannot be counted counts as one."""
    if image_format not in _PAGED:
        return 1
    try:
        if image_format == "jpeg":
            return _count_pictures(image)
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - damage behind the first frame must not cost the first frame
        return 1


def _count_pictures(image: ImageFile.ImageFile) -> int:
    """Count what a multi-picture JPEG (MPO) holds: a stereo pair, a preview, the gain map of a phone."""
    if "mp" not in image.info or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 1
    index = image._getmp()
    return int(index[_NUM_PICTURES]) if index else 1


_NUM_PICTURES: Final = 0xB001


def note_on_rest(num_frames: int, image_format: str) -> str | None:
    """Return the sentence that says that only the first of several was taken."""
    return f"first of {num_frames} {_PAGED[image_format]}" if num_frames > 1 else None


def read_frames(
    image: ImageFile.ImageFile, num_frames: int, orientation: int, options: DecodeOptions
) -> tuple[Frame, ...]:
    """Decode all frames of an animation, each as displayed.

    Args:
        image: opened; its frames are sought one after the other.
        num_frames: from ``count_frames``.
        orientation: EXIF orientation, the same for all.
        options: ``max_pixels`` counts the pixels of all frames together.

    Returns:
        The frames; without alpha if all of them are opaque throughout.
    Raises:
        ImageError: ``TooManyPixels``.
    """
    # An animated PNG may begin with a picture for viewers that show no animation; it is not part of it.
    first = 1 if getattr(image, "default_image", False) and num_frames > 1 else 0
    width_px, height_px = image.size
    num_pixels = width_px * height_px * (num_frames - first)
    if num_pixels > options.max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{num_frames - first} frames of {width_px} x {height_px} px are {num_pixels:,} px, more than "
            f"max_pixels = {options.max_pixels:,}; repaint the first frame only with --animation first",
        )
    profile = image.info.get("icc_profile")
    frames = []
    for index in range(first, num_frames):
        image.seek(index)
        image.load()
        picture = image.copy() if image.mode == "RGB" else image.convert("RGBA")
        picture.info.pop("transparency", None)
        frames.append(_frame(convert(picture, profile), image.info.get("duration", 0), orientation))
    if all(frame.alpha_HW is None or (frame.alpha_HW == 255).all() for frame in frames):
        return tuple(Frame(image_HWC=f.image_HWC, duration_ms=f.duration_ms) for f in frames)
    return tuple(frames)


def _frame(pixels: Pixels, duration: object, orientation: int) -> Frame:
    alpha_HW = pixels.alpha_HW
    if alpha_HW is None:
        alpha_HW = np.full(pixels.image_HWC.shape[:2], 255, np.uint8)
    return Frame(
        image_HWC=upright(pixels.image_HWC, orientation),
        alpha_HW=upright(alpha_HW, orientation),
        duration_ms=round(float(duration)) if isinstance(duration, int | float) else 0,
    )
