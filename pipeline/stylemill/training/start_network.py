"""The start network: a trained half-width network from which trainings begin, because it can draw already.

A network with instance norms needs hundreds of steps from random numbers before it reproduces a picture at all. This
one was trained on the demo's photographs, without a style and then with a drawn one; docs/start-network.md has more.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

FILE: Final = "start_network.safetensors"
SHA256: Final = "8d4a81c8fa64d11b50906b4f87056ee1fdec535018134bceee3efe67b7452aa9"


def builtin_start() -> bytes:
    """Return the file of the start network, a style model in half precision."""
    return resources.files("stylemill.training").joinpath(FILE).read_bytes()
