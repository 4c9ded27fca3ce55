"""An output that cannot be written is the user's mistake where it is found before the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError, StorageError


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
