"""One decoded source: the pixels for the network, and what must survive it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of an animation, as displayed: already composed with the frames before it."""

    image_HWC: np.ndarray
    """(H, W, 3) uint8 sRGB."""

    alpha_HW: np.ndarray | None = None
    """(H, W) uint8, or None where the animation is opaque."""

    duration_ms: int = 0
    """Milliseconds for which the frame stays on the screen."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What of a source's metadata may go into the result; never a place, a preview or an orientation."""

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
    """Text chunks of a PNG under the keywords that its specification names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """A source as the network and the encoder need it.

    The arrays may be read-only.
    """

    image_HWC: np.ndarray
    """(H, W, 3) uint8 sRGB, upright; the first frame of an animation, the first page of a document."""

    alpha_HW: np.ndarray | None = None
    """(H, W) uint8, or uint16 where the source holds 16 bits; not premultiplied; None without alpha."""

    frames: tuple[Frame, ...] = ()
    """All frames of an animation, the first one included, if all were asked for; otherwise empty."""

    source_format: str
    """``jpeg``, ``png``, ``tiff``, ``gif``, ``webp``, ``avif``, ``jpeg2000``, ``bmp``, ``heif`` ..."""

    source_mode: str
    """Pillow's name of the source's pixels, such as ``RGB``, ``P``, ``CMYK``, ``I;16``."""

    lossless: bool = False
    """The source keeps every value that was put into it (PNG, a lossless WebP); so its result should."""

    loop: int | None = None
    """How often the animation repeats (0: for ever), None if the file does not say."""

    had_profile: bool = False
    """The source named its colour space by an ICC profile; the result is tagged as sRGB then."""

    metadata: Metadata = field(default_factory=Metadata)
    """What may be kept of the rest."""

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
