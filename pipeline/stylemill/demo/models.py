"""The trained styles that come with stylemill: style models in half precision, made by ``stylemill train``.

They were trained from the start network on the demo's photographs and drawn styles; docs/start-network.md has the
commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final


@dataclass(frozen=True, kw_only=True)
class CarriedStyle:
    """A trained style of the demo."""

    drawing: str
    """Name of the style image in ``drawn_styles``."""
    sha256: str
    """Digest of the file."""


MODELS: Final = {
    "stained-glass": CarriedStyle(
        drawing="glass", sha256="b11c9c20c21347c7547cbaa8d40f4ae2d55f851aff64c0f6e61b74e98943e48e"
    ),
    "woodcut": CarriedStyle(
        drawing="woodcut", sha256="2f02a56dbe756313e2b714ac4a124ffc32982115ccd47d63e4cd2138206e6125"
    ),
}
"""The styles by name."""


def model_bytes(name: str) -> bytes:
    """Return the file of a style of ``MODELS``."""
    return resources.files("stylemill.demo").joinpath("models", f"{name}.safetensors").read_bytes()
