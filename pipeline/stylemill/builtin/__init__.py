"""The trained styles that come with stylemill: one network of all of them, ``--model builtin`` or ``--style ink``.

docs/builtin-styles.md shows them and says how they were made.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from stylemill.errors import ConfigError
from stylemill.storage.uri import resolve

LOCATION: Final = "builtin"
"""What names the file wherever a location of a style model may stand; ``builtin#ink`` names one of its styles."""
FILE: Final = "styles.safetensors"
SHA256: Final = "ed553b7f69b4b4606529b89ac5eaf13f5a719417eab719f3e574905a574f2b9a"
"""Digest of the file."""
NAMES: Final = ("night-fields", "stained-glass", "woodcut", "dots", "facets", "rings", "waves", "wash", "ink")
"""The styles in their order; the network also has the style ``photo``, which paints photographs as they are."""


def builtin_file() -> bytes:
    """Return the file of all styles, a style model in half precision."""
    return resources.files(__name__).joinpath(FILE).read_bytes()


def is_builtin(uri: str) -> bool:
    """Return whether a model's location names the built-in styles, or one of them."""
    return uri.partition("#")[0] == LOCATION


def model_location(uri: str) -> str:
    """Return the absolute location of a style model: of a file anywhere, or of the built-in styles."""
    if not is_builtin(uri):
        return resolve(uri)
    return str(resources.files(__name__).joinpath(FILE)) + uri.removeprefix(LOCATION)


def models_or_builtin(models: tuple[str, ...], styles: tuple[str, ...]) -> tuple[str, ...]:
    """Return the models of a command, by default the built-in ones if it names a style.

    Raises:
        ConfigError: neither models nor styles are given.
    """
    if models or styles:
        return models or (LOCATION,)
    cure = f"give it, or --style with one that comes with stylemill: {', '.join(NAMES)}"
    raise ConfigError("model", None, "is required", cure)
