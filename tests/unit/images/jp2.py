"""JPEG 2000 files of any channels, depths, subsampling and boxes, put together from what Pillow compresses."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.unit.images.drawn import save

_SIZ, _SOT, _SOD, _EOC = b"\xff\x51", b"\xff\x90", b"\xff\x93", b"\xff\xd9"
_COD = b"\xff\x52"
_BY_COMPONENT = 4  # progression CPRL: all packets of the first component, then all of the second


def codestream(
    components: list[np.ndarray], bits: int, *, steps: list[tuple[int, int]] | None = None, irreversible: bool = False
) -> bytes:
    """Return a codestream of one tile.

    Args:
        components: each (H, W), values from 0 to 2**bits - 1.
        bits: depth of all components.
        steps: distances of the samples of each component, for those of a lower resolution.
        irreversible: quantized.
    """
    wide = 8 if bits <= 8 else 16
    # Samples are stored relative to the middle of their range, so those of a smaller depth lie around the middle.
    # Steps of the quantization are in proportion to the range, so that quantized samples fill it.
    factor = 1 << (wide - bits) if irreversible else 1
    shift = 0 if irreversible else (1 << (wide - 1)) - (1 << (bits - 1))
    files = [
        save(
            Image.fromarray((part.astype(np.uint32) * factor + shift).astype(f"u{wide // 8}")),
            "JPEG2000",
            no_jp2=True,
            num_resolutions=2,
            irreversible=irreversible,
        )
        for part in components
    ]
    steps = steps or [(1, 1)] * len(components)
    height, width = components[0].shape
    sizes = struct.pack(">H8IH", 0, width, height, 0, 0, width, height, 0, 0, len(components))
    sizes += b"".join(bytes((bits - 1, *step)) for step in steps)
    first = files[0]
    rest = first[4 + int.from_bytes(first[4:6], "big") : first.index(_SOT)]
    cod = rest.index(_COD)
    rest = rest[: cod + 5] + bytes((_BY_COMPONENT, 0, 1, 0)) + rest[cod + 9 :]
    packets = b"".join(file[file.index(_SOD) + 2 : -2] for file in files)
    tile = _SOT + struct.pack(">HHIBB", 10, 0, 14 + len(packets), 0, 1) + _SOD + packets
    return b"\xff\x4f" + _SIZ + struct.pack(">H", 2 + len(sizes)) + sizes + rest + tile + _EOC


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def space(number: int) -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, number))


def profile(content: bytes) -> bytes:
    return box(b"colr", struct.pack(">BBB", 2, 0, 0), content)


def definitions(*entries: tuple[int, int, int]) -> bytes:
    """Number, kind and colour of each channel."""
    return box(b"cdef", struct.pack(">H", len(entries)), *(struct.pack(">3H", *entry) for entry in entries))


def palette(colors: list[tuple[int, ...]], bits: int = 8) -> bytes:
    columns = len(colors[0])
    width = (bits + 7) // 8
    entries = b"".join(value.to_bytes(width, "big") for color in colors for value in color)
    return box(b"pclr", struct.pack(">HB", len(colors), columns), bytes([bits - 1] * columns), entries)


def mapping(*entries: tuple[int, int, int]) -> bytes:
    return box(b"cmap", *(struct.pack(">HBB", *entry) for entry in entries))


def jp2(stream: bytes, *boxes: bytes) -> bytes:
    height, width = struct.unpack_from(">II", stream, 8)[::-1]
    (count,) = struct.unpack_from(">H", stream, 40)
    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, count, stream[42], 7, 0, 0))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 ", bytes(4), b"jp2 ")
    return start + box(b"jp2h", header, *boxes) + box(b"jp2c", stream)
