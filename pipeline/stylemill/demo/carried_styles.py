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
        drawing="glass", sha256="a7a280247b04413e57672406cb24c0fded001af73803970a4c3371228db9ee65"
    ),
    "woodcut": CarriedStyle(
        drawing="woodcut", sha256="0683364599fbc6f630f422bd2cd7bcb20fcd31dc4ab2e1bca897fd435e4631fc"
    ),
}
"""The styles by name."""


def model_bytes(name: str) -> bytes:
    """Return the file of a style of ``MODELS``."""
    return resources.files("stylemill.demo").joinpath("models", f"{name}.safetensors").read_bytes()
