"""The functions of ``kernels.c``, if a C compiler was there when the package was installed."""

from __future__ import annotations

import ctypes
import importlib.machinery
import logging
from pathlib import Path

log = logging.getLogger(__name__)

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


def _load() -> ctypes.CDLL | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if not path.is_file():
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:  # built for another machine
            log.warning("the compiled kernels cannot be loaded, torch takes their place: %s", error)
            return None
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        return library
    return None


LIBRARY = _load()
"""None without the compiled file. Calls release the interpreter's lock."""
