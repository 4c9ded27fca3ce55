"""The format in which the decoding child returns a source to its parent: a JSON header and arrays in shared memory.

There is no pickle: the child has read untrusted bytes, so its output is checked like any other input. The arrays are
stored one after another in a memory file that both processes map.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import mmap
import os
import struct
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
_STEP_BYTES: Final = 1 << 20


def pack(source: SourceImage) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the JSON header of a source and its arrays, in the order of ``header["arrays"]``."""
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
    """Return the source from the header and the arrays of ``pack``."""
    remaining = iter(arrays)
    image_HWC = next(remaining)
    alpha_HW = next(remaining) if header["has_alpha"] else None
    frames = []
    for index, (duration_ms, has_alpha) in enumerate(header["frames"]):
        image = image_HWC if index == 0 else next(remaining)
        alpha = None
        if has_alpha:
            alpha = alpha_HW if index == 0 else next(remaining)
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


def place_arrays(descriptions: Sequence[Sequence[Any]]) -> tuple[list[tuple[int, np.dtype[Any], tuple[int, ...]]], int]:
    """Place arrays in memory one after another, each at a multiple of 64 bytes.

    Args:
        descriptions: pairs of a dtype's name and a shape, ``header["arrays"]``.

    Returns:
        Offset in bytes, dtype and shape of each array, and the size of all of them in bytes.

    Raises:
        ValueError: a dtype or shape that a decoded image cannot have.
    """
    placed, offset = [], 0
    for name, shape in descriptions:
        if name not in _DTYPES or len(shape) not in (2, 3) or any(int(side) <= 0 for side in shape):
            raise ValueError(f"unexpected dtype {name} or shape {shape}")
        dtype, sides = _DTYPES[name], tuple(int(side) for side in shape)
        placed.append((offset, dtype, sides))
        num_bytes = dtype.itemsize
        for side in sides:
            num_bytes *= side
        offset += -(-num_bytes // 64) * 64
    return placed, offset


DAMAGED: Final = {"request": "damaged"}
"""The header that reports ``RequestDamaged``."""


def pack_error(error: ImageError) -> dict[str, Any]:
    """Return the header that reports why an image could not be decoded."""
    return {"error": [isinstance(error, NotAnImage), error.error_type, error.message]}


def unpack_error(header: dict[str, Any]) -> ImageError | None:
    """Return the error that a header reports, or None.

    Raises:
        RequestDamaged: the header is ``DAMAGED``.
    """
    if header == DAMAGED:
        raise RequestDamaged("the decoding process found other bytes than were written")
    if "error" not in header:
        return None
    skipped, error_type, message = header["error"]
    return (NotAnImage if skipped else ImageError)(str(error_type), str(message))


REQUEST: Final = struct.Struct("<Q32s")
"""A request: the number of bytes in the memory file for requests and their SHA-256."""


class RequestDamaged(Exception):
    """The bytes in the memory file for requests are not those that were announced; the image is not the cause."""


def write_request(fd: int, data: bytes) -> bytes:
    """Put an image into the memory file for requests, replacing the one before, and return the request for the socket.

    Raises:
        OSError: the file cannot hold it, for instance because memory is used up.
    """
    rest, offset = memoryview(data), 0
    while rest:
        # A write may be short. What it leaves out would be the end of the image before.
        written = os.pwrite(fd, rest, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, f"only {offset} of {len(data)} bytes fit into shared memory")
        rest, offset = rest[written:], offset + written
    os.ftruncate(fd, len(data))
    return REQUEST.pack(len(data), hashlib.sha256(data).digest())


def read_request(fd: int, request: bytes) -> bytes:
    """Return the image that a request announces.

    Raises:
        RequestDamaged: the file has other bytes.
    """
    length, sha256 = REQUEST.unpack(request)
    parts, offset = [], 0
    while part := os.pread(fd, length - offset, offset):
        parts.append(part)
        offset += len(part)
    data = b"".join(parts)
    if len(data) != length or hashlib.sha256(data).digest() != sha256:
        raise RequestDamaged(f"{length} bytes announced, {len(data)} found, or others")
    return data


class SharedMemory:
    """A memory file mapped into this process. The file only grows, and is mapped again only when it has grown."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory: mmap.mmap | None = None

    def grow(self, num_bytes: int) -> mmap.mmap:
        """Return the memory after enlarging the file to at least ``num_bytes``."""
        if os.fstat(self._fd).st_size < num_bytes:
            os.ftruncate(self._fd, -(-num_bytes // _STEP_BYTES) * _STEP_BYTES)
        return self.view(num_bytes)

    def view(self, num_bytes: int) -> mmap.mmap:
        """Return the memory, which holds at least ``num_bytes``.

        Raises:
            ValueError: the file is smaller; the other process has announced more than it has written.
        """
        if self._memory is None or len(self._memory) < num_bytes:
            size = os.fstat(self._fd).st_size
            if size < num_bytes:
                raise ValueError(f"{num_bytes} bytes announced, {size} written")
            self._memory = mmap.mmap(self._fd, size)
        return self._memory

    def release(self) -> None:
        """Return the pages to the operating system (Linux); the file keeps its size and reads as zeros."""
        if self._memory is not None and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_REMOVE)


def create_memory_file(name: str) -> int:
    """Return the descriptor of a new unnamed file; on Linux it is in memory only."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def forbid_shrinking(fd: int) -> None:
    """Forbid every process to shrink the file, which would crash a process that reads the mapped memory (Linux)."""
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
