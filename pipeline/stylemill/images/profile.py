"""ICC profiles: conversion of a source to sRGB, and the sRGB profile of the results."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageCms

_NUM_CACHED: Final = 16
_SPACE_MODES: Final = {"RGB": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",), "Lab": ("LAB",), "LAB": ("LAB",)}


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return an sRGB profile, the same bytes every time.

    LittleCMS writes the current time into a profile's header; it is replaced by 1 January 2000.
    """
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes((0x07, 0xD0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    return bytes(data)


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    """Convert an image without alpha from its ICC profile to sRGB.

    A profile that cannot be used is ignored with a note.

    Args:
        image: mode ``RGB``, ``L``, ``CMYK`` or ``LAB``; may be changed in place.
        profile: the bytes of the profile in the file.

    Returns:
        An ``RGB`` image, or ``image`` where no conversion is needed; and a note, or None.
    """
    try:
        space, transform = _transform(profile, image.mode)
        if space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
            space, transform = _transform(profile, "RGB")
        elif space == "GRAY" and image.mode == "RGB" and _is_gray(image):
            # WebP, AVIF with alpha and transparent gray are handed over as RGB.
            image = image.getchannel(0)
            space, transform = _transform(profile, "L")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return image, f"its ICC profile was ignored because it is damaged ({error})"
    if space is not None:
        return image, f"its ICC profile was ignored because it is for {space}, not for {image.mode}"
    if transform is None:
        return image, None
    return transform.apply(image), None


def _is_gray(image: Image.Image) -> bool:
    """Return whether red, green and blue are equal in every pixel of an RGB image."""
    red, green, blue = image.split()
    return not any(ImageChops.difference(red, other).getbbox() for other in (green, blue))


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile leaves RGB pixels unchanged; False if the profile cannot be used."""
    try:
        return _transform(profile, "RGB") == (None, None)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False


@lru_cache(maxsize=_NUM_CACHED)
def _transform(profile: bytes, mode: str) -> tuple[str | None, ImageCms.ImageCmsTransform | None]:
    """Return the profile's colour space if it does not match ``mode``, and the transform if it changes any pixel."""
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
    """Return whether a transform to sRGB changes no value by more than 1, as for the profiles of most photographs."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    converted = np.asarray(transform.apply(Image.fromarray(lattice)))
    return int(np.abs(converted.astype(np.int16) - lattice).max()) <= 1
