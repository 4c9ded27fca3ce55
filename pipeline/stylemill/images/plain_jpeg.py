"""JPEG files that every decoder decodes alike, recognised by their headers, so that a GPU may decode them.

All other files, damaged ones included, go to ``decode``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ImageFile

from stylemill.images.animation import count_frames
from stylemill.images.formats.jpeg import check_structure, read_structure
from stylemill.images.formats.plugins import open_image
from stylemill.images.formats.sniff import SNIFF_BYTES, is_truncated, sniff
from stylemill.images.metadata import orientation_of, read_metadata
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import apply_orientation
from stylemill.images.profile import is_srgb
from stylemill.images.source_image import Metadata, SourceImage

_RED_GREEN_BLUE: Final = [ord("R"), ord("G"), ord("B")]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainJpeg:
    """A complete JPEG file of three 8-bit channels in YCbCr and sRGB, whose pixels are not decoded yet."""

    data: bytes
    """The file."""

    stored_width_px: int
    stored_height_px: int
    """Size of the image as stored, before the orientation is applied."""

    orientation: int
    """EXIF 0x0112, 1 to 8."""

    had_profile: bool
    """It has an ICC profile, which is sRGB."""

    metadata: Metadata

    @property
    def width_px(self) -> int:
        """Width as displayed."""
        return self.stored_height_px if self.orientation >= 5 else self.stored_width_px

    @property
    def height_px(self) -> int:
        """Height as displayed."""
        return self.stored_width_px if self.orientation >= 5 else self.stored_height_px

    def source(self, stored_HWC: np.ndarray) -> SourceImage:
        """Return the source with pixels that another decoder has decoded.

        Args:
            stored_HWC: (H, W, 3) uint8 as stored, before the orientation is applied.

        Raises:
            ValueError: the size differs from the header, or the dtype is not uint8.
        """
        expected = (self.stored_height_px, self.stored_width_px, 3)
        if stored_HWC.shape != expected or stored_HWC.dtype != np.uint8:
            raise ValueError(f"decoded {stored_HWC.shape} {stored_HWC.dtype}, but the header gives {expected} uint8")
        return SourceImage(
            image_HWC=apply_orientation(stored_HWC, self.orientation),
            source_format="jpeg",
            source_mode="RGB",
            had_profile=self.had_profile,
            metadata=self.metadata,
        )


def plain_jpeg(data: bytes, options: DecodeOptions) -> PlainJpeg | None:
    """Return a file as a plain JPEG, or None if ``decode`` must decode it.

    The pixels are not decoded, so damage is only noticed if it shows in the structure of the file.

    Args:
        data: the whole file.
        options: limits.
    """
    if sniff(data[:SNIFF_BYTES]) != "jpeg" or len(data) > options.max_source_bytes or is_truncated(data, "jpeg"):
        return None
    try:
        check_structure(read_structure(data), data)
        image = open_image(data, "jpeg")
        return _described(data, image) if _is_plain(image, options) else None
    except Exception:  # noqa: BLE001 - `decode` reports what is wrong with the file
        return None


def _is_plain(image: ImageFile.ImageFile, options: DecodeOptions) -> bool:
    width_px, height_px = image.size
    profile = image.info.get("icc_profile")
    channels = [channel[0] for channel in getattr(image, "layer", [])]
    return (
        image.mode == "RGB"
        and getattr(image, "bits", 0) == 8
        and channels != _RED_GREEN_BLUE
        and image.info.get("adobe_transform", 1) == 1
        and 0 < width_px * height_px <= options.max_pixels
        and count_frames(image, "jpeg") == 1
        and (not profile or is_srgb(profile))
    )


def _described(data: bytes, image: ImageFile.ImageFile) -> PlainJpeg:
    orientation = orientation_of(image, "jpeg")
    return PlainJpeg(
        data=data,
        stored_width_px=image.size[0],
        stored_height_px=image.size[1],
        orientation=orientation,
        had_profile=bool(image.info.get("icc_profile")),
        metadata=read_metadata(image, orientation),
    )
