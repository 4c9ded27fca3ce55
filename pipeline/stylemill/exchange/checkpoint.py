"""Reading a checkpoint of another implementation safely: torch's own format, safetensors, or ONNX.

A checkpoint may come from a stranger: ``read_checkpoint`` bounds its size and executes nothing in it. The parameters
may be wrapped, as training scripts and libraries do: in an outer dictionary, or under a prefix of their names.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from stylemill.errors import ConfigError
from stylemill.exchange.foreign import closest_layout

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "transformer", "generator", "params_ema")
"""Keys under which training scripts store the parameters, next to those of an optimizer and the like."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "transformer.", "generator.", "style_net.")
"""Prefixes of wrappers: DataParallel, torch.compile, Lightning modules and the like."""
_MAX_DEPTH = 3
"""Wrappers around wrappers that are looked into."""
MAX_BYTES = 256 << 20
"""Limit of the file and of its unpacked size; the networks of the known layouts take 7 MB."""
_MAX_TEXT_LENGTH = 200
_LENGTH = struct.Struct("<Q")
_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CURE = "save only its parameters, with torch.save(network.state_dict(), FILE), where its code is trusted"
_DAMAGED_CURE = "give the whole file, as torch.save wrote it"


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """The content of a checkpoint of another implementation."""

    tensors: dict[str, Tensor]
    """Tensors by key, without the prefix that a wrapped model adds."""
    notes: dict[str, Any]
    """Text and numbers stored next to the tensors, such as settings of the training."""


def read_checkpoint(data: bytes, *, source: str) -> ForeignCheckpoint:
    """Read a checkpoint; nothing in it is executed.

    Args:
        data: the whole file.
        source: location of the file, for messages.

    Raises:
        ConfigError: not a checkpoint, damaged, too large, or with more than tensors, text and numbers; or ONNX, and the
            package for it is not installed.
    """
    _check_size(data, source)
    if _is_safetensors(data):
        return _from_safetensors(data, source)
    if source.lower().endswith(".onnx"):
        return ForeignCheckpoint(tensors=_unprefixed(_initialisers(data, source)), notes={})
    return _unwrap(_from_torch(data, source), source)


def _from_torch(data: bytes, source: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the version of the pickle
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        if wanted is None:
            raise _unreadable(source, error) from error
        reason = f"needs {wanted[1]}, but only tensors, text and numbers are loaded: a pickle can run any code"
        raise ConfigError("from", source, reason, _CURE) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        AssertionError,
    ) as error:
        raise _unreadable(source, error) from error
    except (OverflowError, MemoryError, RecursionError, ImportError, struct.error) as error:
        raise _unreadable(source, error) from error


def _is_safetensors(data: bytes) -> bool:
    """Return whether a file begins as safetensors do: the length of a JSON object, and its brace."""
    return (
        len(data) > _LENGTH.size
        and data[_LENGTH.size : _LENGTH.size + 1] == b"{"
        and (_LENGTH.unpack_from(data)[0] <= len(data) - _LENGTH.size)
    )


def _from_safetensors(data: bytes, source: str) -> ForeignCheckpoint:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _unreadable(source, error) from error
    if not tensors:
        raise ConfigError("from", source, "holds no tensors", _DAMAGED_CURE)
    return ForeignCheckpoint(tensors=_unprefixed(tensors), notes={})


def _initialisers(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the stored parameters of an ONNX file by name; its graph is not looked at."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx import numpy_helper
    except ImportError:
        raise ConfigError("from", source, "is ONNX", "install the extra: pip install 'stylemill[onnx]'") from None
    try:
        graph = onnx.load_model_from_string(data).graph
        arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        found = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        raise _unreadable(source, error) from error
    if not found:
        raise ConfigError("from", source, "holds no parameters", "give an ONNX file with the weights inside")
    return found


def _unprefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the prefix, or under none, whose names are closest to a known layout's.

    What lies beside the network, such as a loss network that was saved with it, has another prefix and is left out.
    """
    candidates = [dict(tensors)]
    for _ in range(_MAX_DEPTH):
        for candidate in list(candidates):
            for prefix in _PREFIXES:
                below = {key.removeprefix(prefix): value for key, value in candidate.items() if key.startswith(prefix)}
                if below and not any(below.keys() == other.keys() for other in candidates):
                    candidates.append(below)
    return min(candidates, key=lambda candidate: len(closest_layout(set(candidate))[1]))


def _check_size(data: bytes, source: str) -> None:
    unpacked = len(data)
    if data.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise _unreadable(source, error) from error
    if max(unpacked, len(data)) > MAX_BYTES:
        problem = f"has {max(unpacked, len(data)) / 2**20:,.0f} MiB, more than any style network"
        raise ConfigError("from", source, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")


def _unreadable(source: str, error: BaseException) -> ConfigError:
    # The message of weights_only advises to turn it off.
    reason = "its pickle cannot be read" if isinstance(error, pickle.UnpicklingError) else str(error).strip()
    reason = (reason or type(error).__name__).splitlines()[0][:_MAX_TEXT_LENGTH]
    return ConfigError("from", source, f"is not a checkpoint, or is damaged ({reason})", _DAMAGED_CURE)


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _unwrap(loaded: object, source: str) -> ForeignCheckpoint:
    """Return the tensors and notes of a loaded object that is a state dict, or holds one."""
    outer: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    inner = next((found for found in _nested(outer) if _is_state_dict(found)), None)
    if inner is None:
        held = f"a {type(loaded).__name__}" if not outer else f"the keys {', '.join(map(str, list(outer)[:5]))}"
        raise ConfigError("from", source, f"holds {held} instead of a state dict", _CURE)
    tensors = _unprefixed({str(key): value for key, value in inner.items()})
    notes = {
        str(key)[:_MAX_TEXT_LENGTH]: value[:_MAX_TEXT_LENGTH] if isinstance(value, str) else value
        for key, value in outer.items()
        if inner is not outer and isinstance(value, str | int | float | bool) and not _is_not_finite(value)
    }
    return ForeignCheckpoint(tensors=tensors, notes=notes)


def _nested(outer: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield a mapping and those that it holds under the keys of wrappers, the outermost first."""
    waiting = [(outer, 0)]
    while waiting:
        mapping, depth = waiting.pop(0)
        yield mapping
        inner = [mapping[key] for key in _WRAPPERS if key in mapping] if depth < _MAX_DEPTH else []
        waiting += [(found, depth + 1) for found in inner if isinstance(found, Mapping)]


def _is_state_dict(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(value, Tensor) for value in found.values())
