"""The functions of ``kernels.c``, if a C compiler was there when the package was installed."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.metadata
import logging
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

VERSION = 2
"""Of ``kernels.c``; a library of another version was compiled from another file."""

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_ssize_t
_ARGUMENTS = {
    "stylemill_winograd_evaluate": [_POINTER, *[_SIZE] * 4, _POINTER, _SIZE],
    "stylemill_winograd_interpolate": [_POINTER, *[_SIZE] * 4, _POINTER, *[_SIZE] * 4],
    "stylemill_head_evaluate": [_POINTER, *[_SIZE] * 4, _POINTER, _SIZE],
    "stylemill_head_combine": [*[_POINTER] * 3, _SIZE, _SIZE, _POINTER, _POINTER, *[_SIZE] * 3],
    "stylemill_normalise": [
        *(_POINTER, *[_SIZE] * 4),
        *(_POINTER, _POINTER, ctypes.c_int),
        *(_POINTER, _SIZE, _POINTER, _SIZE),
    ],
}


def rows_pointer(rows_HWC: Tensor) -> int:
    """Return the address of a map whose pixels and channels are neighbours in memory, for the functions of the library.

    Raises:
        ValueError: (H, W, C) of another layout or type, which they would misread.
    """
    _, width, channels = rows_HWC.shape
    dense = (width < 2 or rows_HWC.stride(1) == channels) and (channels < 2 or rows_HWC.stride(2) == 1)
    if rows_HWC.dtype != torch.float32 or rows_HWC.device.type != "cpu" or not dense:
        layout = f"{rows_HWC.dtype}, shape {tuple(rows_HWC.shape)}, strides {rows_HWC.stride()}"
        raise ValueError(f"expected a float32 map with dense rows, got {layout}")
    return rows_HWC.data_ptr()


def find_library(folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Load the library beside this module, or, where the code alone was sent to a cluster, that of the installation."""
    names = [f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    for path in [*(folder / name for name in names), *_installed(names)]:
        if path.is_file():
            return _load(path)
    log.info("nn/cpu/kernels.c was not compiled: torch takes its place, more slowly")
    return None


def _installed(names: list[str]) -> list[Path]:
    try:
        distribution = importlib.metadata.distribution("stylemill")
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(distribution.locate_file(f"stylemill/nn/cpu/{name}"))) for name in names]


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
        version = library.stylemill_kernels_version()
    except (OSError, AttributeError) as error:  # built for another machine, or from an older file
        log.warning("%s cannot be used, torch takes its place: %s", path, error)
        return None
    if version != VERSION:
        log.warning("%s has version %s, not %s: install stylemill again; torch takes its place", path, version, VERSION)
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


LIBRARY = find_library()
"""None without a usable library. Its functions release the interpreter's lock, and check nothing."""
