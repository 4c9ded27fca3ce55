"""How much Deflate data holds, without keeping it: the check of PNG rows and texts, and of TIFF strips."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

_SLICE_BYTES: Final = 1 << 16
_PART_BYTES: Final = 1 << 20


def count_inflated(parts: Iterable[memoryview], most: int) -> int:
    """Return how many bytes Deflate data contains; stop as soon as ``most`` is reached.

    Args:
        parts: the compressed data, in order.
        most: where to stop counting.

    Raises:
        zlib.error: the data is damaged.
    """
    return _inflate(parts, most)[0]


def is_complete(data: memoryview) -> bool:
    """Return whether Deflate data has its end, and its checksum is right; what stands behind it does not count."""
    try:
        return _inflate([data], None)[1]
    except zlib.error:
        return False


def _inflate(parts: Iterable[memoryview], most: int | None) -> tuple[int, bool]:
    """Return the number of bytes, and whether the end was reached.

    The data is fed in slices: the inflater copies what it has not read yet for every part of the output, which for a
    large piece would take a time that grows with its square.
    """
    inflater, found = zlib.decompressobj(), 0
    for part in parts:
        for at in range(0, len(part), _SLICE_BYTES):
            rest: bytes | memoryview = part[at : at + _SLICE_BYTES]
            while len(rest) and not inflater.eof and (most is None or found < most):
                found += len(inflater.decompress(rest, _PART_BYTES if most is None else min(_PART_BYTES, most - found)))
                rest = inflater.unconsumed_tail
            if inflater.eof or (most is not None and found >= most):
                return found, inflater.eof
    # A few bytes may be left inside the inflater.
    found += len(inflater.flush())
    return found, inflater.eof
