"""An output that cannot be written is the user's mistake where it is found before the work.

Finding out that an output cannot be written before hours of work end there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stylemill.config import to_yaml
from stylemill.errors import ConfigError, StorageError
from stylemill.storage import Storage, join, resolve


@contextmanager
def first_write(out: str, field: str = "out") -> Iterator[None]:
    """Blame failures of storage on the location of an output.

    Args:
        out: what the user gave, or what it stands for.
        field: that it was given in.

    Raises:
        ConfigError: in place of a StorageError.
    """
    try:
        yield
    except StorageError as error:
        cure = "give a location that these credentials may write"
        raise ConfigError(field, out, f"cannot be written ({error})", cure) from error


def claim_out(storage: Storage, config: Any, verb: str) -> None:
    """Write a verb's config to ``OUT/<verb>.yaml``.

    Raises:
        ConfigError: it cannot be written.
    """
    with first_write(config.out):
        storage.write_bytes(join(resolve(config.out), f"{verb}.yaml"), to_yaml(config).encode())
