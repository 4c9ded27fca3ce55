"""Finding out that an output cannot be written before hours of work end there."""

from __future__ import annotations

from typing import Any

from pipeline.config import to_yaml
from pipeline.errors import ConfigError, StorageError
from pipeline.storage import Storage, join, resolve


def claim_out(storage: Storage, config: Any, verb: str) -> None:
    """Write a verb's config to ``OUT/<verb>.yaml``.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        storage.write_bytes(join(resolve(config.out), f"{verb}.yaml"), to_yaml(config).encode())
    except StorageError as error:
        cure = "give a location that these credentials may write"
        raise ConfigError("out", config.out, f"cannot be written ({error})", cure) from None
