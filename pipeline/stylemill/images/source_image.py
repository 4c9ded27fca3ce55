"""A decoded source: the pixels for the network, and the alpha, timing and metadata that the result takes over."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of an animation as displayed, already composited on the frames before it."""

    image_HWC: np.ndarray
    """(H, W, 3) uint8 sRGB."""

    alpha_HW: np.ndarray | None = None
    """(H, W) uint8, or None where the animation is opaque."""

    duration_ms: int = 0
    """Display time in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata that the result may take over; never a location, a preview or an orientation."""

    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution of the upright image in pixels per inch."""

    artist: str | None = None
    """Name of the author, from EXIF, XMP, IPTC or a text chunk."""

    copyright: str | None = None
    """Copyright notice, from EXIF, XMP, IPTC or a text chunk."""

    exif: bytes | None = None
    """The source's EXIF without orientation, GPS, embedded previews and maker notes."""

    xmp: bytes | None = None
    """The source's XMP packet without orientation, GPS and embedded previews."""

    comment: bytes | None = None
    """Comment of a JPEG or a GIF."""

    text: tuple[tuple[str, str], ...] = ()
    """Keyword and text of the PNG text chunks whose keywords the specification defines."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """A decoded source as the network and the encoder need it. The arrays may be read-only."""

    image_HWC: np.ndarray
    """(H, W, 3) uint8 sRGB, upright; the first frame of an animation, the first page of a document."""

    alpha_HW: np.ndarray | None = None
    """(H, W) uint8, or uint16 where the source holds 16 bits; not premultiplied; None without alpha."""

    frames: tuple[Frame, ...] = ()
    """All frames of an animation, including the first, with ``DecodeOptions(animation="all")``; otherwise empty."""

    source_format: str
    """``jpeg``, ``png``, ``tiff``, ``gif``, ``webp``, ``avif``, ``jpeg2000``, ``bmp``, ``heif`` ..."""

    source_mode: str
    """Pillow's mode of the source, such as ``RGB``, ``P``, ``CMYK``, ``I;16``; dtype and samples if Pillow has none."""

    lossless: bool = False
    """The source is compressed without loss (PNG, lossless WebP), so its result is too where the format allows it."""

    loop: int | None = None
    """Number of repetitions of the animation (0: endless), None if the file does not contain it."""

    had_profile: bool = False
    """The source has an ICC profile, or states another colour space than sRGB; the result is then tagged as sRGB."""

    metadata: Metadata = field(default_factory=Metadata)
    """The metadata that may be kept."""

    notes: tuple[str, ...] = ()
    """Sentences for the manifest row, such as ``first of 12 pages``."""

    @property
    def width_px(self) -> int:
        """Width as displayed, after orientation."""
        return int(self.image_HWC.shape[1])

    @property
    def height_px(self) -> int:
        """Height as displayed, after orientation."""
        return int(self.image_HWC.shape[0])
