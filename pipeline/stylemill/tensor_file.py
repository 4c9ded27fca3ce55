"""The bytes of safetensors files, taken apart and put together without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 8
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class StoredTensor(NamedTuple):
    """One tensor as the file stores it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def pack(tensors: Mapping[str, StoredTensor], entries: Mapping[str, str]) -> bytes:
    """Return a safetensors file whose bytes depend only on the contents.

    The safetensors library writes metadata in the order of a randomly seeded hash map. Tensors are in its order: wide
    types first, then by name.
    """
    order = sorted(tensors, key=lambda key: (-_ITEM_BYTES.get(tensors[key].dtype, 0), tensors[key].dtype, key))
    header: dict[str, Any] = {"__metadata__": dict(entries)}
    end = 0
    for key in order:
        start, end = end, end + len(tensors[key].data)
        header[key] = {"dtype": tensors[key].dtype, "shape": list(tensors[key].shape), "data_offsets": [start, end]}
    text = json.dumps(header, sort_keys=True, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *(tensors[key].data for key in order)])


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """Return metadata and tensors of a safetensors file; raise ValueError, KeyError or TypeError if it is damaged."""
    header, payload_start = header_of(data)
    entries = header.pop("__metadata__", {})
    tensors = {}
    for key, found in header.items():
        start, end = (payload_start + offset for offset in found["data_offsets"])
        if not payload_start <= start <= end <= len(data):
            raise ValueError(f"{key} is outside the file")
        tensors[key] = StoredTensor(found["dtype"], tuple(found["shape"]), data[start:end])
    return entries, tensors


def header_of(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the JSON header of safetensors bytes and where the tensors begin; raise ValueError without a header."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    if len(data) < end:
        raise ValueError("shorter than its header")
    return json_object(data[_LENGTH_BYTES:end]), end


def json_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object; raise ValueError if it is something else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
