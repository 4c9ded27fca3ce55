"""TIFF samples that Pillow does not unpack: floats, half and double precision, 32 and 64 bits, deep or extra planes.

Scans, renderings and scientific images use them. The reader supports gray, RGB and CMYK, strips and tiles, chunky and
planar layout, no compression and Deflate, and every predictor.
"""

from __future__ import annotations

import io
import itertools
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import TiffImagePlugin

from stylemill.errors import ImageError

_DTYPES: Final = {
    (1, 8): "u1",
    (1, 16): "u2",
    (1, 32): "u4",
    (1, 64): "u8",
    (2, 8): "i1",
    (2, 16): "i2",
    (2, 32): "i4",
    (2, 64): "i8",
    (3, 16): "f2",
    (3, 32): "f4",
    (3, 64): "f8",
}
_DEFLATE: Final = (8, 32946)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_NUM_COLORS: Final = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _SEPARATED: 4}
_CMYK: Final = 1

# Why not tifffile: with version 2026.3.3 instead of this reader, 27 of the 93 cases of its test failed.
# - The floating-point predictor (3), with which libtiff, GDAL and Photoshop can write compressed floats, needs the
#   package imagecodecs: native decoders for dozens of formats that would then see untrusted bytes.
# - A Deflate block is inflated to its end: a strip for 3,864 bytes of pixels that held 1 GiB of zeros took 2 GiB of
#   memory. Here zlib stops at the size of the block.
# - A damaged layout is guessed: one strip instead of three and 0 rows per strip were decoded without an error, and data
#   that ends inside a strip was reported as damaged, not as truncated.


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffSamples:
    """The samples of the first page, as stored but for premultiplied alpha and inverted gray."""

    samples_HWC: np.ndarray
    """(H, W, 1) gray or (H, W, 3) RGB, where zero is black, or (H, W, 4) CMYK, where zero is no ink; of any dtype in
    ``_DTYPES``."""

    alpha_HW: np.ndarray | None
    """(H, W) of the same dtype, not premultiplied; None without alpha."""


def read_directory(data: bytes) -> Any:
    """Return the tags of the first page of a TIFF or BigTIFF file, as Pillow's mapping of tag numbers to values."""
    header = data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def read_samples(data: bytes, tags: Any) -> TiffSamples:
    """Read the samples of the first page.

    Args:
        data: the whole file.
        tags: from ``read_directory``; the caller has checked the width and height that they give.

    Raises:
        ImageError: ``UnsupportedFormat``, ``Truncated`` or ``Corrupt``.
    """
    width, height = int(tags[256]), int(tags[257])
    bits, formats = tags.get(258, (1,)), tags.get(339, (1,))
    num_samples, compression, photometric = int(tags.get(277, 1)), tags.get(259, 1), tags.get(262)
    name = _DTYPES.get((formats[0], bits[0])) if len(set(bits)) == len(set(formats)) == 1 else None
    num_colors = _NUM_COLORS.get(photometric, 0)
    is_other_ink = photometric == _SEPARATED and tags.get(332, _CMYK) != _CMYK
    if name is None or not num_colors or num_samples < num_colors or is_other_ink:
        raise _unsupported(f"{bits} bits of kind {formats}, photometric {photometric!r}")
    if compression not in (1, *_DEFLATE):
        raise _unsupported(f"{bits} bits of kind {formats}, compression {compression!r}")
    dtype = np.dtype(("<" if data[:2] == b"II" else ">") + name)
    extra = tags.get(338, ())
    has_alpha = bool(extra) and extra[0] in (1, 2) and num_samples > num_colors
    planar = tags.get(284, 1) == 2
    if planar:
        num_samples = num_colors + has_alpha  # planes of other samples are not read
    samples_HWC = np.zeros((height, width, num_samples), dtype.newbyteorder("="))
    for plane in range(num_samples) if planar else (None,):
        target = samples_HWC if plane is None else samples_HWC[..., plane : plane + 1]
        _fill(target, plane or 0, data, tags, dtype)
    colors_HWC, alpha_HW = samples_HWC[..., :num_colors], None
    if has_alpha:
        alpha_HW = samples_HWC[..., num_colors]
        if extra[0] == 1:
            colors_HWC = _unpremultiplied(colors_HWC, alpha_HW)
    if photometric == _WHITE_IS_ZERO:
        top = np.iinfo(dtype).max if dtype.kind != "f" else colors_HWC.max()
        colors_HWC = top - colors_HWC
    return TiffSamples(samples_HWC=colors_HWC, alpha_HW=alpha_HW)


def _fill(target_HWC: np.ndarray, plane: int, data: bytes, tags: Any, dtype: np.dtype[Any]) -> None:
    """Fill one plane, or all samples of a chunky file, from its strips or tiles.

    Blocks of more than 4 x (width + 512) x (height + 512) px are refused before anything is allocated for them.
    """
    height, width, depth = target_HWC.shape
    tiled = 324 in tags
    block_width = int(tags[322]) if tiled else width
    block_height = int(tags[323]) if tiled else min(int(tags.get(278, height)), height)
    offsets, counts = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    if block_width < 1 or block_height < 1 or block_width * block_height > 4 * (width + 512) * (height + 512):
        raise ImageError("Corrupt", f"the TIFF data is damaged: blocks of {block_width} x {block_height} px")
    corners = list(itertools.product(range(0, height, block_height), range(0, width, block_width)))
    first = plane * len(corners)
    for (top, left), offset, count in zip(corners, offsets[first:], counts[first:], strict=False):
        rows = block_height if tiled else min(block_height, height - top)
        shape = (rows, block_width, depth)
        block = _block(data[offset : offset + count], shape, dtype, tags)
        part = target_HWC[top : top + rows, left : left + block_width]
        part[...] = block[: part.shape[0], : part.shape[1]]
    if len(offsets[first:]) < len(corners):
        raise ImageError("Truncated", f"the TIFF data has {len(offsets)} blocks of pixels where it needs more")


def _block(content: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any], tags: Any) -> np.ndarray:
    """Return one strip or tile as an array of ``shape``, decompressed and with its predictor undone."""
    num_bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
    if tags.get(259, 1) in _DEFLATE:
        content = zlib.decompressobj().decompress(content, num_bytes)
    if len(content) < num_bytes:
        raise ImageError("Truncated", f"the TIFF data is cut off: {len(content):,} of {num_bytes:,} bytes of a block")
    predictor = tags.get(317, 1)
    if predictor == 3:
        # A row stores all first bytes of its samples (the most significant), then all second bytes and so on, each as
        # the difference from its neighbour on the left (Adobe, TIFF technical note 3).
        planes = np.frombuffer(content, np.uint8, num_bytes).reshape(shape[0], -1, shape[2])
        summed = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(shape[0], dtype.itemsize, -1)
        return summed.swapaxes(1, 2).copy().view(dtype.newbyteorder(">")).reshape(shape)
    block = np.frombuffer(content, dtype, shape[0] * shape[1] * shape[2]).reshape(shape)
    if predictor == 2 and dtype.kind != "f":
        return np.cumsum(block, axis=1, dtype=dtype.newbyteorder("="))
    return block


def _unpremultiplied(colors_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    top = 1.0 if alpha_HW.dtype.kind == "f" else float(np.iinfo(alpha_HW.dtype).max)
    with np.errstate(divide="ignore", invalid="ignore"):
        colors = colors_HWC.astype(np.float64) / alpha_HW[..., None] * top
    return np.where(alpha_HW[..., None] == 0, 0, np.minimum(colors, top)).astype(colors_HWC.dtype)


def _unsupported(what: str) -> ImageError:
    return ImageError(
        "UnsupportedFormat", f"this kind of TIFF is not supported ({what}); convert it to 8 or 16 bits first"
    )
