"""The style image of a training: read, scaled and checked for what makes the results poor."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.errors import ConfigError, ImageError, config_errors_for
from stylemill.images.isolation.client import decode_isolated
from stylemill.images.short_side import on_white, resize_short_side
from stylemill.storage import Storage, resolve
from stylemill.storage.user_errors import reading_input
from stylemill.style_file import PHOTO
from stylemill.training.config import TrainConfig

FLAT_STD = 4.0
"""Standard deviation of every channel, of 255, below which a style image has one colour."""
GREY_CHROMA = 3.0
"""Mean difference of the channels of a pixel, of 255, below which a style image is grey."""


@dataclass(frozen=True, kw_only=True)
class StyleInput:
    """A style image that was read and checked."""

    name: str
    """Of the style."""
    uri: str
    """Location of the image."""
    png: bytes | None
    """As the loss sees it: upright, RGB, resized; None for the style that paints photographs as they are."""
    sha256: str | None
    """Digest of its file."""
    warnings: tuple[str, ...] = ()


def read_styles(storage: Storage, config: TrainConfig) -> tuple[StyleInput, ...]:
    """Read the style images of a config, and scale them to the size at which the loss uses them.

    Raises:
        ConfigError: one does not exist or cannot be decoded.
    """
    pairs = zip(config.style_names, config.style_image, strict=False)  # the style photo has no image
    styles = [_read_style(storage, config, name, uri) for name, uri in pairs]
    if config.with_photo:
        styles.append(StyleInput(name=PHOTO, uri=PHOTO, png=None, sha256=None))
    return tuple(styles)


def _read_style(storage: Storage, config: TrainConfig, name: str, uri: str) -> StyleInput:
    try:
        with config_errors_for("style_image"), reading_input("style_image", uri, expected="an image"):
            data = storage.read_bytes(resolve(uri))
        image = on_white(decode_isolated(data))
        image_HWC = resize_short_side(image, config.style_size_px)
    except ImageError as failure:
        cure = "give a JPEG or PNG"
        raise ConfigError("style_image", uri, f"is not an image that can be read ({failure})", cure) from None
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return StyleInput(
        name=name,
        uri=uri,
        png=buffer.getvalue(),
        sha256=hashlib.sha256(data).hexdigest(),
        warnings=tuple(f"{uri} {problem}" for problem in _style_problems(image_HWC, min(image.size))),
    )


def _style_problems(image_HWC: NDArray[np.uint8], own_side_px: int) -> list[str]:
    """Return what makes a style image a poor one, in words that follow its name."""
    side_px = min(image_HWC.shape[:2])
    if image_HWC.reshape(-1, 3).std(axis=0).max() < FLAT_STD:
        return ["has one colour and no strokes: the pictures will be nearly flat; give a picture with a texture"]
    problems = []
    if own_side_px * 2 < side_px:
        problems.append(
            f"is only {own_side_px} px wide or high and was enlarged to {side_px}: the strokes will be blurred; "
            "give a larger picture, or a smaller --style-size-px"
        )
    if np.ptp(image_HWC.astype(np.int16), axis=2).mean() < GREY_CHROMA:
        problems.append(
            "is grey, so the pictures will be; repaint with --preserve-color to keep the photographs' colours"
        )
    return problems
