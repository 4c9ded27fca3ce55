"""Conversion of decoded pixels to 8-bit sRGB: bit depths, alpha, orientation and Pillow's modes.

``convert`` handles every mode that Pillow decodes to. ``correct_samples`` comes before it, for files that Pillow
interprets differently from other readers. ``scale_to_8_bits`` defines how samples of other depths become 8 bits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageChops

from stylemill.errors import ImageError
from stylemill.images.hdr import HdrSignal, to_sdr
from stylemill.images.profile import to_srgb

_TILE_PX: Final = 512

# TIFF tags and values.
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_SAMPLE_FORMAT: Final = 339
_WHITE_IS_ZERO: Final = 0

# Keys of `Image.info` by which `correct_samples` passes facts about the file to `convert`.
_TOP: Final = "stylemill_top"
_UNSIGNED: Final = "stylemill_unsigned"


@dataclass(kw_only=True, eq=False)
class Pixels:
    """Decoded pixels as stored, before the orientation is applied."""

    image_HWC: np.ndarray
    """(H, W, 3) uint8 sRGB."""

    alpha_HW: np.ndarray | None = None
    """(H, W) uint8, or None without alpha."""

    notes: list[str] = field(default_factory=list)
    """Sentences for the manifest row."""


def correct_samples(picture: Image.Image, opened: Image.Image, image_format: str) -> None:
    """Correct samples that Pillow interprets differently from other readers, before ``convert``.

    Args:
        picture: the decoded image, changed in place.
        opened: the file from which it was decoded, for its tags.
        image_format: the format of the file.
    """
    tags = getattr(opened, "tag_v2", {}) if image_format == "tiff" else {}
    if picture.mode in ("I;16", "I;16B", "F") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values_HW = np.asarray(picture)
        inverted_HW = 65535 - values_HW if picture.mode != "F" else values_HW.max() - values_HW
        picture.paste(Image.fromarray(inverted_HW.astype(values_HW.dtype)))
    if picture.mode.startswith("I;16") and tags.get(_BITS_PER_SAMPLE) == (12,):
        picture.info[_TOP] = 4095
    if picture.mode == "I" and tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        picture.info[_UNSIGNED] = True
    if image_format == "ppm" and picture.mode == "I":
        picture.info[_TOP] = 65535
    if image_format == "jpeg" and picture.mode == "CMYK" and "adobe" not in picture.info:
        # Adobe stores inverted CMYK and marks it with an Adobe segment; Pillow inverts files without the segment, too.
        picture.paste(ImageChops.invert(picture))


def convert(image: Image.Image, profile: bytes | HdrSignal | None) -> Pixels:
    """Convert a loaded image of any of Pillow's modes to 8-bit sRGB and alpha.

    Args:
        image: loaded; may be changed in place.
        profile: the ICC profile of the file, or what its samples mean if it is of high dynamic range; None: sRGB.
    """
    notes: list[str] = []
    alpha_HW: np.ndarray | None = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image, alpha_HW, scaling = _from_high_depth(image)
        if scaling:
            notes.append(scaling)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image, alpha_HW = _split_alpha(image)
    elif image.mode in ("P", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if isinstance(profile, HdrSignal):
        image = to_sdr(image.convert("RGB"), profile)
    elif profile:
        image, note = to_srgb(image, profile)
        if note:
            notes.append(note)
    if image.mode == "LAB":
        image = _from_lab(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return Pixels(image_HWC=np.asarray(image), alpha_HW=alpha_HW, notes=notes)


def _from_high_depth(image: Image.Image) -> tuple[Image.Image, np.ndarray | None, str | None]:
    """Scale one channel of more than 8 bits to 8; return the image, its alpha and a note."""
    values_HW = np.asarray(image)
    alpha_HW = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha_HW = np.where(values_HW == transparent, 0, 255).astype(np.uint8)
    if image.info.get(_UNSIGNED):
        values_HW = values_HW.view(np.uint32)
    scaled_HW, note = scale_to_8_bits(values_HW, image.info.get(_TOP))
    return Image.fromarray(scaled_HW), alpha_HW, note


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Return the colours as RGB or L, and alpha exactly as stored."""
    if image.mode in ("La", "L", "1"):  # with a transparent value; gray stays gray, for a profile of gray
        image = image.convert("LA")
    if image.mode == "LA":
        gray, alpha = image.split()
        return gray, np.asarray(alpha)
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    red_green_blue, alpha_HW = image.convert("RGB"), np.asarray(image.getchannel("A"))
    return red_green_blue, alpha_HW


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    return transform.apply(image)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image by the width and height in its header.

    Raises:
        ImageError: ``Corrupt`` or ``TooManyPixels``.
    """
    width_px, height_px = size
    if width_px <= 0 or height_px <= 0:
        raise ImageError("Corrupt", f"its header gives {width_px} x {height_px} px, which is not a valid size")
    if width_px * height_px > max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{width_px} x {height_px} = {width_px * height_px:,} px are more than max_pixels = {max_pixels:,}",
        )


def scale_to_8_bits(values: np.ndarray, top: int | None = None) -> tuple[np.ndarray, str | None]:
    """Scale samples of any depth to 0..255.

    8-bit integers are returned unchanged; 16-bit unsigned integers span 0..65535. Other dtypes have no agreed range:
    values within 0..1 (floats), 0..255 or 0..65535 are taken as that range, all others are stretched from their minimum
    to their maximum.

    Args:
        values: of any shape and any integer or float dtype.
        top: the largest possible value, if the file format defines it.

    Returns:
        uint8 of the same shape, and a note where the range was guessed or values were replaced.
    """
    if values.dtype == np.uint8:
        return values, None
    if top is None and values.dtype == np.uint16:
        top = 65535
    if top is not None:
        wide = np.minimum(values, top).astype(np.uint32)
        # 65535 becomes 255, and an 8-bit value times 257 becomes that 8-bit value.
        return ((wide * 255 + top // 2) // top).astype(np.uint8), None
    is_float = values.dtype.kind == "f"
    values = values.astype(np.float64 if values.dtype.itemsize >= (8 if is_float else 4) else np.float32)
    notes = []
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
        notes.append("pixels that are not finite numbers were set to black")
    low, high = float(values.min()), float(values.max())
    for known in (1.0,) * is_float + (255.0, 65535.0):
        if low >= 0 and high <= known:
            values = values * (255.0 / known)
            break
    else:
        notes.insert(0, f"values from {low:g} to {high:g} were stretched to 0..255")
        largest = max(abs(low), abs(high))  # divided first, so that nothing overflows
        span = high / largest - low / largest
        values = (values / largest - low / largest) * (255.0 / span if span else 0.0)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8), "; ".join(notes) or None


def alpha_to_8_or_16_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Convert (H, W) alpha of any dtype to uint8 or uint16: floats span 0..1, integers the range of their dtype."""
    if alpha_HW.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(alpha_HW.astype(np.float32)), 0, 1) * 255).astype(np.uint8)
    if alpha_HW.dtype.kind == "i":
        alpha_HW = np.maximum(alpha_HW, 0).view(f"u{alpha_HW.dtype.itemsize}") << 1
    if alpha_HW.dtype.itemsize <= 2:
        return alpha_HW
    return (alpha_HW >> (8 * alpha_HW.dtype.itemsize - 16)).astype(np.uint16)


def alpha_to_8_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Convert (H, W) alpha of dtype uint8 or uint16 to uint8."""
    return alpha_HW if alpha_HW.dtype == np.uint8 else (alpha_HW >> 8).astype(np.uint8)


def flatten_on_white(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """Composite an RGB image on white through an 8-bit alpha of the same size."""
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), alpha)


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return the array turned and mirrored as a viewer displays it.

    Args:
        array: (H, W, 3) uint8, or (H, W) of any dtype, as stored.
        orientation: EXIF 0x0112; 1 to 8, all other values are taken as 1.

    Returns:
        A contiguous array, (W, H, ...) for the orientations 5 to 8; for 1 the array itself if it is contiguous.

    Source: CIPA DC-008 (EXIF 2.32), tag Orientation.
    """
    array = np.ascontiguousarray(array)
    if not 2 <= orientation <= 8:
        return array
    # Moving whole pixels is about three times as fast as moving their three bytes.
    pixels_HW = array.view(f"V{array.shape[2]}")[..., 0] if array.ndim == 3 else array
    if orientation >= 5:
        pixels_HW = pixels_HW.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels_HW = pixels_HW[::-1]
    if orientation in (2, 3, 6, 7):
        pixels_HW = pixels_HW[:, ::-1]
    turned_HW = np.empty(pixels_HW.shape, pixels_HW.dtype)
    height, width = turned_HW.shape
    for top, left in itertools.product(range(0, height, _TILE_PX), range(0, width, _TILE_PX)):
        # A tile fits into the caches: an 80 megapixel photo turns three times as fast as in one piece.
        tile = np.s_[top : top + _TILE_PX, left : left + _TILE_PX]
        turned_HW[tile] = pixels_HW[tile]
    return turned_HW.view(array.dtype).reshape(*turned_HW.shape, *array.shape[2:])
