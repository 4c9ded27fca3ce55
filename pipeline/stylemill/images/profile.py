"""From the colour space that a source names to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

_NUM_CACHED: Final = 16
_SPACE_MODES: Final = {"RGB": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",), "Lab": ("LAB",), "LAB": ("LAB",)}


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return an sRGB profile, the same bytes every time.

    LittleCMS writes the time of day into a profile's header; it is set to the first of January 2000 here.
    """
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes((0x07, 0xD0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    return bytes(data)


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    """Convert a picture without alpha by its ICC profile.

    A profile that cannot be used costs a note, never the picture.

    Args:
        image: mode ``RGB``, ``L``, ``CMYK`` or ``LAB``; may be changed in place.
        profile: the bytes found in the file.

    Returns:
        An ``RGB`` picture, or the one given where nothing had to be done; and a note, or None.
    """
    try:
        space, transform = _transform(profile, image.mode)
        if space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
            space, transform = _transform(profile, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return image, f"its ICC profile was ignored because it is damaged ({error})"
    if space is not None:
        return image, f"its ICC profile was ignored because it is for {space}, not for {image.mode}"
    if transform is None:
        return image, None
    return transform.apply(image), None


def is_srgb(profile: bytes) -> bool:
    """Tell whether a profile leaves RGB pixels as they are; False where it cannot be used."""
    try:
        return _transform(profile, "RGB") == (None, None)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False


@lru_cache(maxsize=_NUM_CACHED)
def _transform(profile: bytes, mode: str) -> tuple[str | None, ImageCms.ImageCmsTransform | None]:
    """Return (the profile's colour space if it does not fit, the transform if it changes anything)."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if mode not in _SPACE_MODES.get(space, ()):
        return space or "no colour space", None
    transform = ImageCms.ImageCmsTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        intent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return None, None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Tell a profile that is sRGB in all but name: most photographs carry one, and need no conversion."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    converted = np.asarray(transform.apply(Image.fromarray(lattice)))
    return int(np.abs(converted.astype(np.int16) - lattice).max()) <= 1
