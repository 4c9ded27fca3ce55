"""Frozen dataclasses as JSON objects in storage, with one error for damaged content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from stylemill.errors import StorageError, StylemillError

RecordT = TypeVar("RecordT")


def record_to_json(record: Any, *, indent: int | None = 1, ensure_ascii: bool = False) -> bytes:
    """Return a dataclass instance as JSON, its fields in the order of the class.

    Args:
        record: holds JSON values, and dataclasses of such values.
        indent: spaces per level; None for a single line.
        ensure_ascii: escape characters outside ASCII.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(asdict(record), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False).encode()


def record_from_json(
    build: Callable[..., RecordT],
    data: bytes,
    uri: str,
    *,
    cure: str,
    error_type: type[StylemillError] = StorageError,
) -> RecordT:
    """Return the record in the content of an object.

    Args:
        build: the dataclass, or a function of its fields.
        data: content of the object.
        uri: its location, for the message.
        cure: what the user can do about damage.
        error_type: raised for damage.

    Raises:
        StylemillError: of ``error_type``; the content is not JSON, or does not have the fields of the record.
    """
    try:
        return build(**json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise error_type(f"{uri} is damaged ({error}); {cure}") from error
