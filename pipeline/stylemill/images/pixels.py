"""From samples of any depth to 8 bits.

Turns pixels upright by the EXIF orientation.

Alpha where a result has none, or fewer bits of it.

From the pixels that a plugin decodes to 8-bit sRGB and alpha.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageChops

from stylemill.images.profile import to_srgb


def to_eight_bits(values: np.ndarray, top: int | None = None) -> tuple[np.ndarray, str | None]:
    """Scale samples to 0..255.

    8-bit integers stay, 16-bit unsigned integers span 0 to 65535. All others have no agreed range: values within
    0..1 (floats), 0..255 or 0..65535 count as that range, anything else is stretched from its minimum to its maximum.

    Args:
        values: of any shape and any integer or float dtype.
        top: the largest value that can occur, where the file says so.

    Returns:
        uint8 of the same shape, and a note where the range was guessed.
    """
    if values.dtype == np.uint8:
        return values, None
    if top is None and values.dtype == np.uint16:
        top = 65535
    if top is not None:
        wide = np.minimum(values, top).astype(np.uint32)
        # 65535 becomes 255, and any 8-bit value times 257 comes back.
        return ((wide * 255 + top // 2) // top).astype(np.uint8), None
    is_float = values.dtype.kind == "f"
    values = values.astype(np.float64 if values.dtype.itemsize >= (8 if is_float else 4) else np.float32)
    notes = []
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
        notes.append("pixels that are no numbers were made black")
    low, high = float(values.min()), float(values.max())
    for known in (1.0,) * is_float + (255.0, 65535.0):
        if low >= 0 and high <= known:
            values = values * (255.0 / known)
            break
    else:
        notes.insert(0, f"values from {low:g} to {high:g} were stretched to 0..255")
        largest = max(abs(low), abs(high))  # so that nothing overflows
        span = high / largest - low / largest
        values = (values / largest - low / largest) * (255.0 / span if span else 0.0)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8), "; ".join(notes) or None


def alpha_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Bring alpha of any dtype to uint8 or uint16: floats span 0..1, integers their whole range."""
    if alpha_HW.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(alpha_HW.astype(np.float32)), 0, 1) * 255).astype(np.uint8)
    if alpha_HW.dtype.kind == "i":
        alpha_HW = np.maximum(alpha_HW, 0).view(f"u{alpha_HW.dtype.itemsize}") << 1
    if alpha_HW.dtype.itemsize <= 2:
        return alpha_HW
    return (alpha_HW >> (8 * alpha_HW.dtype.itemsize - 16)).astype(np.uint16)


_TILE_PX: Final = 512


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return the array as a viewer shows it.

    Args:
        array: (H, W, 3) uint8, or (H, W) of any dtype, as stored.
        orientation: EXIF 0x0112; 1 to 8, anything else counts as 1.

    Returns:
        A contiguous array, (W, H, ...) for the orientations 5 to 8; the array itself if it was upright.
    Source: CIPA DC-008 (EXIF 2.32), tag Orientation.
    """
    array = np.ascontiguousarray(array)
    if not 2 <= orientation <= 8:
        return array
    # Whole pixels move about three times as fast as their three bytes.
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
        # Small enough for the caches: an 80 megapixel photo turns three times as fast as in one go.
        tile = np.s_[top : top + _TILE_PX, left : left + _TILE_PX]
        turned_HW[tile] = pixels_HW[tile]
    return turned_HW.view(array.dtype).reshape(*turned_HW.shape, *array.shape[2:])


def to_8_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8 alpha of one that is uint8 or uint16."""
    return alpha_HW if alpha_HW.dtype == np.uint8 else (alpha_HW >> 8).astype(np.uint8)


def on_white(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return an RGB picture laid on white through an 8-bit alpha of its size."""
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), alpha)


@dataclass(kw_only=True, eq=False)
class Pixels:
    """Decoded pixels as stored, not yet upright."""

    image_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def convert(image: Image.Image, profile: bytes | None) -> Pixels:
    """Convert a loaded picture of any of Pillow's modes.

    Args:
        image: loaded; may be changed in place.
        profile: the file's ICC profile, if it has one.
    """
    notes: list[str] = []
    alpha_HW: np.ndarray | None = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image, alpha_HW, scaling = _from_deep(image)
        if scaling:
            notes.append(scaling)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image, alpha_HW = _split_alpha(image)
    elif image.mode in ("P", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if profile:
        image, note = to_srgb(image, profile)
        if note:
            notes.append(note)
    if image.mode == "LAB":
        image = _from_lab(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return Pixels(image_HWC=np.asarray(image), alpha_HW=alpha_HW, notes=notes)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """Return the colours as RGB or L, and alpha exactly as stored."""
    if image.mode == "La":
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


def _from_deep(image: Image.Image) -> tuple[Image.Image, np.ndarray | None, str | None]:
    """Scale one channel of more than 8 bits to 8."""
    values_HW = np.asarray(image)
    alpha_HW = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha_HW = np.where(values_HW == transparent, 0, 255).astype(np.uint8)
    if image.info.get(UNSIGNED):
        values_HW = values_HW.view(np.uint32)
    scaled_HW, note = to_eight_bits(values_HW, image.info.get(TOP))
    return Image.fromarray(scaled_HW), alpha_HW, note


def straighten(picture: Image.Image, opened: Image.Image, image_format: str) -> None:
    """Mend what Pillow takes differently from other readers, before anything is converted.

    Args:
        picture: the pixels, changed in place.
        opened: the file that they come from, for its tags.
        image_format: of the file.
    """
    tags = getattr(opened, "tag_v2", {}) if image_format == "tiff" else {}
    if picture.mode in ("I;16", "I;16B", "F") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values_HW = np.asarray(picture)
        inverted_HW = 65535 - values_HW if picture.mode != "F" else values_HW.max() - values_HW
        picture.paste(Image.fromarray(inverted_HW.astype(values_HW.dtype)))
    if picture.mode.startswith("I;16") and tags.get(_BITS_PER_SAMPLE) == (12,):
        picture.info[TOP] = 4095
    if picture.mode == "I" and tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        picture.info[UNSIGNED] = True
    if image_format == "ppm" and picture.mode == "I":
        picture.info[TOP] = 65535
    if image_format == "jpeg" and picture.mode == "CMYK" and "adobe" not in picture.info:
        # Only Adobe writes CMYK upside down, and says so; Pillow takes it for granted.
        picture.paste(ImageChops.invert(picture))


TOP: Final = "stylemill_top"
UNSIGNED: Final = "stylemill_unsigned"
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0
_BITS_PER_SAMPLE: Final = 258
_SAMPLE_FORMAT: Final = 339
