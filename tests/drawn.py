"""Pictures and tiny style models that tests draw themselves, the same each time."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageCms

from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_model import StyleModel


def drawn_image(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    """Return an (H, W, 3) uint8 picture with gradients, edges and some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px]
    waves = [np.sin((x * a + y * b) / 9 + seed) * 80 + 128 for a, b in rng.uniform(-2, 2, (3, 2))]
    image_HWC = np.stack(waves, axis=2) + rng.normal(0, 12, (height_px, width_px, 3))
    image_HWC[(x // 11 + y // 7) % 5 == 0] *= 0.5
    return image_HWC.clip(0, 255).astype(np.uint8)


def image_bytes(height_px: int, width_px: int, seed: int = 0, format: str = "JPEG") -> bytes:
    """Return a drawn picture as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(drawn_image(height_px, width_px, seed)).save(buffer, format)
    return buffer.getvalue()


def wide_gamut_profile() -> bytes:
    """Adobe RGB (1998) in all but name: sRGB's profile with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    for index in range(int.from_bytes(profile[128:132], "big")):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if name in columns:
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in columns[name]))
    return bytes(profile)


def style_model(name: str = "waves", seed: int = 0, width: float = 0.1) -> StyleModel:
    """Return a narrow network with seeded random weights as a style."""
    architecture = Architecture(width=width)
    net = TransformerNet(architecture)
    net.init_weights(seed)
    return StyleModel(
        name=name,
        version="1",
        architecture=architecture,
        state_dict=net.state_dict(),
        metadata={"drawn_by": "tests", "seed": seed},
    )
