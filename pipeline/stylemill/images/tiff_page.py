"""TIFF pages that Pillow does not unpack, decoded to 8-bit sRGB."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from stylemill.images.formats.tiff_layout import ignored_samples_note
from stylemill.images.formats.tiff_samples import read_directory, read_samples
from stylemill.images.metadata import credit_text
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import alpha_to_8_or_16_bits, apply_orientation, check_size, convert, scale_to_8_bits
from stylemill.images.source_image import Metadata, SourceImage

# TIFF tags.
_WIDTH: Final = 256
_HEIGHT: Final = 257
_ORIENTATION: Final = 274
_NUM_SAMPLES: Final = 277
_ARTIST: Final = 315
_COPYRIGHT: Final = 33432
_ICC_PROFILE: Final = 34675

_MODES: Final = {1: "L", 3: "RGB", 4: "CMYK"}


def decode_tiff_page(data: bytes, options: DecodeOptions) -> SourceImage:
    """Decode the first page of a TIFF file with ``formats.tiff_samples``.

    Args:
        data: the whole file.
        options: ``max_pixels`` is checked.

    Raises:
        ImageError: ``TooManyPixels``, ``UnsupportedFormat``, ``Truncated`` or ``Corrupt``.
    """
    tags = read_directory(data)
    check_size((int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0))), options.max_pixels)
    page = read_samples(data, tags)
    scaled_HWC, note = scale_to_8_bits(page.samples_HWC)
    mode = _MODES[scaled_HWC.shape[2]]
    picture = Image.fromarray(scaled_HWC[..., 0] if mode == "L" else np.ascontiguousarray(scaled_HWC), mode)
    profile = tags.get(_ICC_PROFILE)
    pixels = convert(picture, profile if isinstance(profile, bytes) else None)
    orientation = tags.get(_ORIENTATION, 1)
    alpha_HW = None if page.alpha_HW is None else alpha_to_8_or_16_bits(page.alpha_HW)
    notes = note, ignored_samples_note(tags), *pixels.notes
    return SourceImage(
        image_HWC=apply_orientation(pixels.image_HWC, orientation),
        alpha_HW=None if alpha_HW is None else apply_orientation(alpha_HW, orientation),
        source_format="tiff",
        source_mode=f"{page.samples_HWC.dtype}x{tags.get(_NUM_SAMPLES, 1)}",
        lossless=True,
        had_profile=bool(profile),
        metadata=Metadata(artist=credit_text(tags.get(_ARTIST)), copyright=credit_text(tags.get(_COPYRIGHT))),
        notes=tuple(text for text in notes if text),
    )
