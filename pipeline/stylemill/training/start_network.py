"""The start network: a trained half-width network from which trainings begin, because it can draw already.

A network with instance norms needs hundreds of steps from random numbers before it reproduces a picture at all. This
one was trained on the demo's photographs with all drawn styles in turn; docs/start-network.md shows how to make it.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

FILE: Final = "start_network.safetensors"
SHA256: Final = "bf323023ced6b32fca15170d830ceda28c1e53583795c86bdac11c729e9a5a43"


def builtin_start() -> bytes:
    """Return the file of the start network, a style model in half precision."""
    return resources.files("stylemill.training").joinpath(FILE).read_bytes()
