"""The start network: a trained half-width network from which trainings begin, because it can draw already.

A network with instance norms needs hundreds of steps from random numbers before it reproduces a picture at all. This
one was trained on the demo's photographs, first to draw them and then to paint them in a drawn style;
docs/start-network.md has more.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

FILE: Final = "start_network.safetensors"
SHA256: Final = "cea175d1eab6c8d26bbe40094a0f69da1836e17ee0d8634a669838369f0f1d00"


def builtin_start() -> bytes:
    """Return the file of the start network, a style model in half precision."""
    return resources.files("stylemill.training").joinpath(FILE).read_bytes()
