"""Tensors out of a file that a stranger wrote with ``torch.save``: bounded, and without running any of it."""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ConfigError

MAX_BYTES = 256 << 20
"""Of the file, and of what it unpacks to; the networks that are known here take 7 MB."""
_TEXT_KEPT = 200
_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CURE = "save its parameters alone, with torch.save(network.state_dict(), FILE), where its code is trusted"
_DAMAGED = "give the whole file, as torch.save wrote it"


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """What a checkpoint of another implementation holds."""

    tensors: dict[str, Tensor]
    """By key, without the prefix that a wrapped model adds."""
    notes: dict[str, Any]
    """Words and numbers beside the tensors: how it was trained, if it says so."""


def read_checkpoint(data: bytes, *, source: str) -> ForeignCheckpoint:
    """Read a checkpoint with ``weights_only``.

    Args:
        data: the whole file.
        source: where it came from, for messages.

    Raises:
        ConfigError: not a checkpoint, damaged, too large, or more than tensors, words and numbers.
    """
    _check_size(data, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's version: it is read, or refused below
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        if wanted is None:
            raise _unreadable(source, error) from error
        reason = f"needs {wanted[1]}, and only tensors, words and numbers are loaded: a pickle can run any code"
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
    return _unwrap(loaded, source)


def _check_size(data: bytes, source: str) -> None:
    unpacked = len(data)
    if data.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise _unreadable(source, error) from error
    if max(unpacked, len(data)) > MAX_BYTES:
        problem = f"holds {max(unpacked, len(data)) / 2**20:,.0f} MiB, more than any style network"
        raise ConfigError("from", source, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")


def _unreadable(source: str, error: BaseException) -> ConfigError:
    # What weights_only adds of its own is advice to do without it.
    reason = "its pickle cannot be read" if isinstance(error, pickle.UnpicklingError) else str(error).strip()
    reason = (reason or type(error).__name__).splitlines()[0][:_TEXT_KEPT]
    return ConfigError("from", source, f"is no checkpoint, or a damaged one ({reason})", _DAMAGED)


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _unwrap(loaded: object, source: str) -> ForeignCheckpoint:
    """Find the tensors: the object itself, or its ``state_dict``."""
    outer: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    inner = outer.get("state_dict", outer)
    found = inner if isinstance(inner, Mapping) else {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(found):
        held = f"a {type(loaded).__name__}" if not outer else f"the keys {', '.join(map(str, list(outer)[:5]))}"
        raise ConfigError("from", source, f"holds no state dict but {held}", _CURE)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    notes = {
        str(key)[:_TEXT_KEPT]: value[:_TEXT_KEPT] if isinstance(value, str) else value
        for key, value in outer.items()
        if inner is not outer and isinstance(value, str | int | float | bool) and not _is_no_json(value)
    }
    return ForeignCheckpoint(tensors=tensors, notes=notes)
