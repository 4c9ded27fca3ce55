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
        drawing="glass", sha256="b4a581ac1e1d4e01668db433912526e4e2d910d5e4f2c86a929d01d03f810f41"
    ),
    "woodcut": CarriedStyle(
        drawing="woodcut", sha256="de61dda81cc8e31c41d3265e7f1058f506018cb66414767680b8e72a3315f09a"
    ),
}
"""The styles by name."""


def model_bytes(name: str) -> bytes:
    """Return the file of a style of ``MODELS``."""
    return resources.files("stylemill.demo").joinpath("models", f"{name}.safetensors").read_bytes()
