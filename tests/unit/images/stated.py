"""Files that state their colour by numbers, drawn by code: chunks put into a PNG, boxes changed in an AVIF."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from tests.unit.images.drawn import save

_HEADER_ENDS = 33  # signature and IHDR of a PNG


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Put chunks behind the header of a PNG."""
    return data[:_HEADER_ENDS] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[_HEADER_ENDS:]


def flat_png(color: tuple[int, ...], *chunks: tuple[bytes, bytes], mode: str = "RGB") -> bytes:
    return png_with(save(Image.new(mode, (8, 8), color if len(color) > 1 else color[0]), "PNG"), *chunks)


def gamma_chunk(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chromaticity_chunk(*values: float) -> tuple[bytes, bytes]:
    """White, red, green, blue, each as x and y."""
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def cicp_chunk(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, transfer, matrix, full_range))


def avif_with_code_points(data: bytes, primaries: int, transfer: int) -> bytes:
    """Replace the code points in every colour box of an AVIF that Pillow has written without a profile."""
    changed = bytearray(data)
    at = changed.find(b"colrnclx")
    assert at >= 0
    while at >= 0:
        struct.pack_into(">HH", changed, at + 8, primaries, transfer)
        at = changed.find(b"colrnclx", at + 8)
    return bytes(changed)


def flat_avif(color: tuple[int, ...], primaries: int, transfer: int) -> bytes:
    data = save(Image.new("RGB", (16, 16), color), "AVIF", quality=100, subsampling="4:4:4")
    return avif_with_code_points(data, primaries, transfer)


def avif_with_aperture(data: bytes, clap: bytes) -> bytes:
    """Put a clean aperture, 32 bytes, in front of the rotation and mirroring of the primary picture of an AVIF."""
    box = struct.pack(">I4s", 8 + len(clap), b"clap") + clap
    places = {kind: data.index(kind) - 4 for kind in (b"meta", b"iloc", b"iprp", b"ipco", b"ipma")}
    sizes = {kind: int.from_bytes(data[at : at + 4], "big") for kind, at in places.items()}
    changed = bytearray(data)
    ipma, ipco_end = places[b"ipma"], places[b"ipco"] + sizes[b"ipco"]
    kinds, at = [], places[b"ipco"] + 8
    while at < ipco_end:
        kinds.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    first = ipma + 16  # header, version and flags, number of items; then the item, the count, a byte each
    count = data[first + 2]
    entries = list(data[first + 3 : first + 3 + count])
    turned = [index for index, entry in enumerate(entries) if kinds[(entry & 0x7F) - 1] in (b"irot", b"imir")]
    entries.insert(min(turned, default=count), 0x80 | (len(kinds) + 1))
    grown = len(box) + 1
    iloc = places[b"iloc"] + 12
    assert data[iloc : iloc + 2] == b"\x44\x00"
    for item in range(int.from_bytes(data[iloc + 2 : iloc + 4], "big")):
        at = iloc + 4 + 14 * item + 6  # each item has one extent
        struct.pack_into(">I", changed, at, int.from_bytes(data[at : at + 4], "big") + grown)
    for kind, more in ((b"meta", grown), (b"iprp", grown), (b"ipco", len(box)), (b"ipma", 1)):
        struct.pack_into(">I", changed, places[kind], sizes[kind] + more)
    changed[first + 2 : first + 3 + count] = bytes((count + 1, *entries))
    changed[ipco_end:ipco_end] = box
    return bytes(changed)


# Chromaticities of red, green and blue with their linear mixture as light of CIE XYZ: an independent way to sRGB.
XYZ_TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
P3_TO_XYZ = np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0, 0.0451134, 1.0439444]])
BT2020_TO_XYZ = np.array(
    [[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0, 0.0280727, 1.0609851]]
)


def srgb_light(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
