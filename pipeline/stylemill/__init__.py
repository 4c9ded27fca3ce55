"""Train style-transfer networks and repaint image libraries with them. Importing it loads neither torch nor ray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylemill.api.jobs import stylize, train
    from stylemill.api.manifest import Manifest
    from stylemill.api.ray_data import Stylizer
    from stylemill.style_model import StyleModel

__version__ = "0.1.0"
__all__ = ["Manifest", "StyleModel", "Stylizer", "__version__", "stylize", "train"]

_HOMES = {
    "Manifest": "stylemill.api.manifest",
    "StyleModel": "stylemill.style_model",
    "Stylizer": "stylemill.api.ray_data",
    "stylize": "stylemill.api.jobs",
    "train": "stylemill.api.jobs",
}
"""The module of each public name; it is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
