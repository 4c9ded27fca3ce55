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
        drawing="glass", sha256="05dd63f71271315947573845bdf10c52a7a125a685dd36cc269ba114b089fd9a"
    ),
    "woodcut": CarriedStyle(
        drawing="woodcut", sha256="de36091859f98eaecf35c7e6c71cda2d3296be6d1bde83ce6d13a81a2b81352f"
    ),
}
"""The styles by name."""


def model_bytes(name: str) -> bytes:
    """Return the file of a style of ``MODELS``."""
    return resources.files("stylemill.demo").joinpath("models", f"{name}.safetensors").read_bytes()
