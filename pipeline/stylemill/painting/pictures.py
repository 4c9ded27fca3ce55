"""Pictures as a program holds them (paths, bytes, Pillow images, arrays) to sources, and results back to pictures."""

from __future__ import annotations

import os
from typing import TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.images.controls import resize
from stylemill.images.isolation.client import decode_isolated
from stylemill.images.metadata import orientation_of
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import alpha_to_8_bits, apply_orientation, convert
from stylemill.images.source_image import SourceImage
from stylemill.painting.fetch import fetch_source
from stylemill.storage import Storage, resolve

Picture: TypeAlias = Union[str, "os.PathLike[str]", bytes, Image.Image, NDArray[np.uint8]]
"""A path or URI, the bytes of a file, a Pillow image, or an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8."""


def to_source(picture: Picture) -> SourceImage:
    """Return the pixels that the network gets, as the bulk flow decodes them: upright 8-bit sRGB, alpha apart.

    Files are decoded in a child process that this process keeps. Of an animation the first frame is taken. Arrays are
    sRGB already, gray if they have one channel. So are Pillow images without an ICC profile: Pillow does not keep all
    that a file says of its colour (cICP, nclx), and a program may have converted the pixels without changing the rest.

    Raises:
        ImageError: it cannot be read or decoded.
        NotAnImage: the bytes are not an image.
        ConfigError: the location is not one.
        ValueError: the array has another shape or dtype, or no pixels.
        TypeError: it is none of these.
    """
    if isinstance(picture, bytes):
        return decode_isolated(picture)
    if isinstance(picture, str | os.PathLike):
        uri = resolve(os.fspath(picture))
        return decode_isolated(fetch_source(Storage(), uri, 0, DecodeOptions().max_source_bytes))
    if isinstance(picture, Image.Image):
        return _from_pillow(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    raise TypeError(f"a path, bytes, a Pillow image or an array is needed, not {type(picture).__name__}")


def _from_pillow(picture: Image.Image) -> SourceImage:
    copied = picture.copy()
    copied.info = dict(picture.info)
    profile = copied.info.get("icc_profile")
    orientation = orientation_of(picture, (picture.format or "").lower())
    pixels = convert(copied, profile)
    alpha_HW = None if pixels.alpha_HW is None else apply_orientation(pixels.alpha_HW, orientation)
    return SourceImage(
        image_HWC=apply_orientation(pixels.image_HWC, orientation),
        alpha_HW=alpha_HW,
        source_format="pillow",
        source_mode=picture.mode,
        had_profile=bool(profile),
    )


def _from_array(array: NDArray[np.uint8]) -> SourceImage:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not is_image or array.dtype != np.uint8 or not array.size:
        wanted = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8"
        raise ValueError(f"an array must be {wanted}, not {array.shape} {array.dtype}")
    has_alpha = array.ndim == 3 and array.shape[2] == 4
    channels_HWC = array[..., :3] if array.ndim == 3 else array[..., None]
    image_HWC = np.ascontiguousarray(np.broadcast_to(channels_HWC, (*array.shape[:2], 3)))
    alpha_HW = np.ascontiguousarray(array[..., 3]) if has_alpha else None
    return SourceImage(image_HWC=image_HWC, alpha_HW=alpha_HW, source_format="array", source_mode="RGB")


def to_array(painted_HWC: NDArray[np.uint8], source: SourceImage) -> NDArray[np.uint8]:
    """Return a result with the alpha of its source, scaled to its size.

    Args:
        painted_HWC: (H, W, 3) uint8.
        source: gives the alpha.
    Returns:
        (H, W, 3) uint8, or (H, W, 4) if the source has alpha.
    """
    if source.alpha_HW is None:
        return painted_HWC
    alpha_HW = resize(alpha_to_8_bits(source.alpha_HW), painted_HWC.shape[1], painted_HWC.shape[0])
    return np.dstack([painted_HWC, alpha_HW])
