"""From the pixels that a plugin decodes to 8-bit sRGB and alpha."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageChops

from pipeline.images.profile import to_srgb


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
    """Scale one channel of more than 8 bits to 8.

    16-bit integers span 0 to 65535. 32-bit integers and floats have no agreed range: values within
    0..1 (floats), 0..255 or 0..65535 count as that range, anything else is stretched from its
    minimum to its maximum.
    """
    values_HW = np.asarray(image)
    alpha_HW = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha_HW = np.where(values_HW == transparent, 0, 255).astype(np.uint8)
    top = image.info.get(TOP)
    if top is None and image.mode.startswith("I;16"):
        top = 65535
    if top:
        return Image.fromarray(_divide(values_HW, top)), alpha_HW, None
    values_HW = values_HW.astype(np.float32)
    finite_HW = np.isfinite(values_HW)
    note = None
    if not finite_HW.all():
        note = "pixels that are no numbers were made black"
        values_HW = np.where(finite_HW, values_HW, np.float32(0))
    low, high = float(values_HW.min()), float(values_HW.max())
    for top in (1.0,) * (image.mode == "F") + (255.0, 65535.0):
        if low >= 0 and high <= top:
            scale = 255.0 / top
            break
    else:
        scale = 255.0 / (high - low) if high > low else 0.0
        values_HW = values_HW - np.float32(low)
        note = f"values from {low:g} to {high:g} were stretched to 0..255" + (f"; {note}" if note else "")
    scaled_HW = np.rint(np.clip(values_HW * np.float32(scale), 0, 255)).astype(np.uint8)
    return Image.fromarray(scaled_HW), alpha_HW, note


def _divide(values_HW: np.ndarray, top: int) -> np.ndarray:
    """Map 0..top to 0..255 and round: 65535 becomes 255, and any 8-bit value times 257 comes back."""
    wide = np.minimum(values_HW, top).astype(np.uint32)
    return ((wide * 255 + top // 2) // top).astype(np.uint8)


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
    if image_format == "ppm" and picture.mode == "I":
        picture.info[TOP] = 65535
    if image_format == "jpeg" and picture.mode == "CMYK" and "adobe" not in picture.info:
        # Only Adobe writes CMYK upside down, and says so; Pillow takes it for granted.
        picture.paste(ImageChops.invert(picture))


TOP: Final = "stylemill_top"
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0
_BITS_PER_SAMPLE: Final = 258
