"""Finding out that an output cannot be written before hours of work end there."""

from __future__ import annotations

from typing import Any

from pipeline.config import to_yaml
from pipeline.storage import Storage, join, resolve
from pipeline.storage.writing import first_write


def claim_out(storage: Storage, config: Any, verb: str) -> None:
    """Write a verb's config to ``OUT/<verb>.yaml``.

    Raises:
        ConfigError: it cannot be written.
    """
    with first_write(config.out):
        storage.write_bytes(join(resolve(config.out), f"{verb}.yaml"), to_yaml(config).encode())
