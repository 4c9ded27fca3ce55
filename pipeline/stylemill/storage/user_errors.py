"""Storage failures at a location that the user gave, raised as ConfigErrors that name its field.

For the checks before a job: there a location that cannot be read or written is a mistake to correct. Later, in the
middle of the work, the same failure stays a StorageError, after which the job can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stylemill.config import to_yaml
from stylemill.errors import AccessDenied, ConfigError, ObjectNotFound, PathConflict, StorageError
from stylemill.storage.storage import Storage
from stylemill.storage.uri import join, resolve, scheme


@contextmanager
def writing_output(location: str, field: str = "out", *, only: type[StorageError] = StorageError) -> Iterator[None]:
    """Raise ConfigError for a StorageError in the block: the output location cannot be written.

    Args:
        location: as the user gave it.
        field: that it was given in.
        only: translate only errors of this class.
    """
    try:
        yield
    except only as error:
        cure = "give a location that these credentials may write"
        if isinstance(error, PathConflict) or scheme(location) == "file":
            cure = "give a folder or a prefix in which files can be created"
        raise ConfigError(field, location, f"cannot be written ({error})", cure) from error


@contextmanager
def reading_input(field: str, location: object, *, expected: str) -> Iterator[None]:
    """Raise ConfigError for a StorageError in the block: the object at this location cannot be read.

    Args:
        field: that the location was given in.
        location: as the user gave it.
        expected: what the field takes, for the message (``an image``).
    """
    try:
        yield
    except ObjectNotFound as error:
        raise ConfigError(field, location, "does not exist", f"give the location of {expected}") from error
    except StorageError as error:
        cure = "check the location and the credentials"
        raise ConfigError(field, location, f"cannot be read ({error})", cure) from error


@contextmanager
def listing_input(field: str, location: object) -> Iterator[None]:
    """Raise ConfigError for a StorageError in the block: the objects at this location cannot be listed."""
    try:
        yield
    except AccessDenied as error:
        raise ConfigError(field, location, f"cannot be read ({error})", "check the credentials") from error
    except StorageError as error:
        cure = "check the location and that its store answers"
        raise ConfigError(field, location, f"cannot be listed ({error})", cure) from error


def write_config(storage: Storage, config: Any, verb: str) -> None:
    """Write a verb's config to ``OUT/<verb>.yaml``, which also shows early whether OUT can be written.

    Raises:
        ConfigError: it cannot be written.
    """
    with writing_output(config.out):
        storage.write_bytes(join(resolve(config.out), f"{verb}.yaml"), to_yaml(config).encode())
