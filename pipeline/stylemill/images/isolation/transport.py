"""A decoded source as plain JSON and raw arrays, for the way from the decoding child to its parent.

No pickle: what comes from a process that read bytes from strangers is checked like any other input.

A memory file mapped by two processes, mapped again only when it has grown.
"""

from __future__ import annotations

import base64
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.source_image import Frame, Metadata, SourceImage

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"uint8": np.dtype(np.uint8), "uint16": np.dtype(np.uint16)}
_BYTES_FIELDS: Final = ("exif", "xmp", "comment")


def pack(source: SourceImage) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return a JSON-able description and the arrays that go beside it."""
    arrays = [source.image_HWC]
    if source.alpha_HW is not None:
        arrays.append(source.alpha_HW)
    for frame in source.frames[1:]:
        arrays.append(frame.image_HWC)
        if frame.alpha_HW is not None:
            arrays.append(frame.alpha_HW)
    metadata = asdict(source.metadata)
    for name in _BYTES_FIELDS:
        if metadata[name] is not None:
            metadata[name] = base64.b64encode(metadata[name]).decode()
    header = {
        "arrays": [[array.dtype.name, list(array.shape)] for array in arrays],
        "has_alpha": source.alpha_HW is not None,
        "frames": [[frame.duration_ms, frame.alpha_HW is not None] for frame in source.frames],
        "metadata": metadata,
        "source_format": source.source_format,
        "source_mode": source.source_mode,
        "lossless": source.lossless,
        "loop": source.loop,
        "had_profile": source.had_profile,
        "notes": list(source.notes),
    }
    return header, arrays


def unpack(header: dict[str, Any], arrays: Sequence[np.ndarray]) -> SourceImage:
    """Build the source again from what ``pack`` made of it."""
    waiting = iter(arrays)
    image_HWC = next(waiting)
    alpha_HW = next(waiting) if header["has_alpha"] else None
    frames = []
    for index, (duration_ms, has_alpha) in enumerate(header["frames"]):
        image = image_HWC if index == 0 else next(waiting)
        alpha = None
        if has_alpha:
            alpha = alpha_HW if index == 0 else next(waiting)
        frames.append(Frame(image_HWC=image, alpha_HW=alpha, duration_ms=int(duration_ms)))
    metadata = dict(header["metadata"])
    for name in _BYTES_FIELDS:
        if metadata[name] is not None:
            metadata[name] = base64.b64decode(metadata[name])
    metadata["dpi"] = None if metadata["dpi"] is None else tuple(metadata["dpi"])
    metadata["text"] = tuple((str(name), str(value)) for name, value in metadata["text"])
    return SourceImage(
        image_HWC=image_HWC,
        alpha_HW=alpha_HW,
        frames=tuple(frames),
        source_format=str(header["source_format"]),
        source_mode=str(header["source_mode"]),
        lossless=bool(header["lossless"]),
        loop=header["loop"],
        had_profile=bool(header["had_profile"]),
        metadata=Metadata(**metadata),
        notes=tuple(str(note) for note in header["notes"]),
    )


def spans(described: Sequence[Sequence[Any]]) -> tuple[list[tuple[int, np.dtype[Any], tuple[int, ...]]], int]:
    """Place arrays one behind the other, each on a multiple of 64 bytes.

    Args:
        described: pairs of a dtype's name and a shape.

    Returns:
        Offset, dtype and shape of each, and the bytes that all take together.
    Raises:
        ValueError: a dtype or shape that no decoded picture has.
    """
    placed, offset = [], 0
    for name, shape in described:
        if name not in _DTYPES or len(shape) not in (2, 3) or any(int(side) <= 0 for side in shape):
            raise ValueError(f"no picture has dtype {name} and shape {shape}")
        dtype, sides = _DTYPES[name], tuple(int(side) for side in shape)
        placed.append((offset, dtype, sides))
        num_bytes = dtype.itemsize
        for side in sides:
            num_bytes *= side
        offset += -(-num_bytes // 64) * 64
    return placed, offset


def pack_error(error: ImageError) -> dict[str, Any]:
    """Describe why an image could not be decoded."""
    return {"error": [isinstance(error, NotAnImage), error.error_type, error.message]}


def unpack_error(header: dict[str, Any]) -> ImageError | None:
    """Return the error that a header describes, or None."""
    if "error" not in header:
        return None
    skipped, error_type, message = header["error"]
    return (NotAnImage if skipped else ImageError)(str(error_type), str(message))


_STEP_BYTES: Final = 1 << 20


class SharedMemory:
    """One process's view of a memory file that only ever grows."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory: mmap.mmap | None = None

    def grow(self, num_bytes: int) -> mmap.mmap:
        """Return the memory, made large enough."""
        if os.fstat(self._fd).st_size < num_bytes:
            os.ftruncate(self._fd, -(-num_bytes // _STEP_BYTES) * _STEP_BYTES)
        return self.view(num_bytes)

    def view(self, num_bytes: int) -> mmap.mmap:
        """Return the memory.

        Raises:
            ValueError: the other process has not made it that large.
        """
        if self._memory is None or len(self._memory) < num_bytes:
            size = os.fstat(self._fd).st_size
            if size < num_bytes:
                raise ValueError(f"{num_bytes} bytes announced, {size} delivered")
            self._memory = mmap.mmap(self._fd, size)
        return self._memory

    def forget(self) -> None:
        """Give the pages back to the machine; the file keeps its size and reads as zeros."""
        if self._memory is not None and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_REMOVE)


def memory_file(name: str) -> int:
    """Return the number of a new file that has no name in any folder and, on Linux, lives in memory alone."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def seal_against_shrinking(fd: int) -> None:
    """See to it that no process can pull away memory that another one is reading (Linux)."""
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
