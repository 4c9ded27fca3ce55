"""From the pixels that a plugin decodes to 8-bit sRGB and alpha."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageChops

from pipeline.images.profile import to_srgb
from pipeline.images.scaling import to_eight_bits


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
