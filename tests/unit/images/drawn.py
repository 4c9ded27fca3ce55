"""Test images in every mode and file format that Pillow writes, drawn by code."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

WIDTH, HEIGHT = 23, 14
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F")
FORMATS = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS")
FORMATS += ("ICNS", "XBM", "QOI", "MPO")
COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd", "lzma", "webp")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}],
    "TIFF": [{"compression": name} for name in COMPRESSIONS],
    "WEBP": [{}, {"lossless": True}],
    "TGA": [{}, {"compression": "tga_rle"}],
    "DDS": [{}, {"pixel_format": "DXT1"}, {"pixel_format": "DXT5"}, {"pixel_format": "BC5"}],
    "PNG": [{}, {"bits": 4}],
}

_rows, _columns = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB_HWC = np.stack([_columns * 10, _rows * 16, (_columns + _rows) * 6], axis=-1).astype(np.uint8)
ALPHA_HW = (255 - _columns * 11).astype(np.uint8)
DEEP_HW = (_columns * 2000 + _rows * 500).astype(np.uint16)


def picture(mode: str) -> Image.Image:
    """Draw the same gradients in any of Pillow's modes."""
    if mode == "I;16":
        return Image.fromarray(DEEP_HW)
    if mode == "I;16B":
        return Image.frombytes("I;16B", (WIDTH, HEIGHT), DEEP_HW.astype(">u2").tobytes())
    if mode == "I":
        return Image.fromarray(DEEP_HW.astype(np.int32))
    if mode == "F":
        return Image.fromarray(DEEP_HW.astype(np.float32) / 65535)
    if mode == "P":
        return Image.fromarray(RGB_HWC).convert("P", palette=Image.Palette.ADAPTIVE)
    if mode == "PA":
        image = picture("P").convert("PA")
        image.putalpha(Image.fromarray(ALPHA_HW))
        return image
    if mode in ("RGBA", "LA"):
        return Image.fromarray(np.dstack([RGB_HWC, ALPHA_HW])).convert(mode)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.buildTransform(*profiles, "RGB", "LAB").apply(Image.fromarray(RGB_HWC))
    return Image.fromarray(RGB_HWC).convert(mode)


def save(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@functools.cache
def every_file() -> dict[str, bytes]:
    """Return one file for every mode, container and compression that Pillow writes, under a name of these parts."""
    files = {}
    for image_format in FORMATS:
        for mode in MODES:
            image = picture(mode)
            if image_format == "ICNS":
                image = image.resize((16, 16))
            for options in OPTIONS.get(image_format, [{}]):
                try:
                    data = save(image, image_format, **options)
                except (OSError, ValueError, KeyError, TypeError, SystemError, RuntimeError):
                    continue  # this container does not hold this mode
                files["-".join([image_format, mode, *(str(v) for v in options.values())])] = data
    return files


def animation(image_format: str, *, num_frames: int = 3, opaque: bool = False, **options: Any) -> bytes:
    """Return an animation whose frames differ in colour and, unless opaque, in which corner is transparent."""
    frames = []
    for index in range(num_frames):
        image = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        image[..., index % 3] = 200
        image[..., 3] = 255
        if not opaque:
            image[: 3 + index, :4, 3] = 0
        frames.append(Image.fromarray(image).convert("RGB" if opaque else "RGBA"))
    if image_format == "GIF":
        options |= {"disposal": 2}
    timing = {"duration": [40 + 30 * index for index in range(num_frames)], "loop": 3}
    return save(frames[0], image_format, save_all=True, append_images=frames[1:], **timing, **options)
