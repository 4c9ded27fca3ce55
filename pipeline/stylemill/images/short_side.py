"""Decode an image at about the size at which it is used: its shorter side gets a given length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode, recognise
from stylemill.images.failures import classify
from stylemill.images.formats import jpeg
from stylemill.images.formats.plugins import open_image
from stylemill.images.metadata import orientation_of
from stylemill.images.options import DecodeOptions
from stylemill.images.pixels import (
    alpha_to_8_bits,
    apply_orientation,
    check_size,
    convert,
    correct_samples,
    flatten_on_white,
)
from stylemill.images.source_image import SourceImage

MAX_ASPECT = 8
"""Longest side over shortest; without a limit, a line of 1 x 10,000 px resized to the crop's side takes gigabytes."""


def decode_short_side(data: bytes, short_side_px: int, options: DecodeOptions) -> SourceImage:
    """Decode an image, upright and in sRGB, with its shorter side resized to ``short_side_px``.

    Transparent pixels become white. An image with an aspect ratio above MAX_ASPECT is cropped to its middle.

    Args:
        data: bytes of an image file.
        short_side_px: shorter side of the result.
        options: limits.

    Raises:
        ImageError: the image cannot be decoded.
    """
    source_format = recognise(data, options)
    if source_format == "jpeg":
        image = Image.fromarray(_decode_jpeg(data, short_side_px, options))
    else:
        image = on_white(decode(data, options))
    image_HWC = resize_short_side(image, short_side_px)
    return SourceImage(image_HWC=image_HWC, source_format=source_format, source_mode="RGB")


def on_white(source: SourceImage) -> Image.Image:
    """Return a source as an RGB picture whose transparent pixels are white."""
    image = Image.fromarray(source.image_HWC)
    if source.alpha_HW is None:
        return image
    return flatten_on_white(image, Image.fromarray(alpha_to_8_bits(source.alpha_HW)))


def resize_short_side(image: Image.Image, short_side_px: int) -> NDArray[np.uint8]:
    """Return an RGB picture with its shorter side resized, (H, W, 3) uint8; at most MAX_ASPECT of its middle."""
    longest_px = MAX_ASPECT * min(image.size)
    width_px, height_px = (min(side_px, longest_px) for side_px in image.size)
    left_px, top_px = (image.width - width_px) // 2, (image.height - height_px) // 2
    box = (left_px, top_px, left_px + width_px, top_px + height_px)
    scale = short_side_px / min(width_px, height_px)
    new_width_px, new_height_px = (max(short_side_px, round(side_px * scale)) for side_px in (width_px, height_px))
    return np.asarray(image.resize((new_width_px, new_height_px), Image.Resampling.BICUBIC, box=box))


def _decode_jpeg(data: bytes, short_side_px: int, options: DecodeOptions) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8, decoded at libjpeg's smallest sufficient scale, which is several times faster."""
    try:
        image = open_image(data, "jpeg")
        check_size(image.size, options.max_pixels)
        mode = image.mode
        image.draft("RGB", (short_side_px, short_side_px))
        stored = jpeg.read_pixels(data, mode, image.size)
        picture: Image.Image = image if stored is None else jpeg.as_picture(stored, mode)
        picture.load()
        picture.info = dict(image.info)
        correct_samples(picture, image, "jpeg")
        pixels = convert(picture, image.info.get("icc_profile"))
        return apply_orientation(pixels.image_HWC, orientation_of(image, "jpeg"))
    except ImageError:
        raise
    except Exception as error:
        # Any exception of a decoder on hostile bytes is a fault of this image.
        raise classify(error, data, "jpeg") from error
