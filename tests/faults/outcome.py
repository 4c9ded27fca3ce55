"""What came of a run, in a form that can be compared with an undisturbed one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stylemill.manifest.read import find_run, read_manifest
from stylemill.storage import Storage, join

Outcome = dict[tuple[str, str], tuple[str, str | None, str | None]]


def outcome_of(out: str, storage: Storage | None = None) -> Outcome:
    """Return (key, style) -> (status, error type, output digest) of a committed run; check each object's bytes.

    Fails if a source has two rows, if an ``ok`` row's object is not what the row says, or if an object has no row.
    """
    storage = storage or Storage()
    rows = read_manifest(storage, find_run(storage, out)).to_pylist()
    pairs = Counter((row["key"], row["style"]) for row in rows)
    assert set(pairs.values()) == {1}, [pair for pair, count in pairs.items() if count > 1]
    for row in rows:
        if row["status"] == "ok":
            data = storage.read_bytes(row["output_uri"])
            assert hashlib.sha256(data).hexdigest() == row["output_sha256"], row["key"]
    painted = {row["output_uri"] for row in rows if row["status"] == "ok"}
    assert {found.uri for found in storage.list_objects(join(out, "images"))} == painted
    return rows_outcome(rows)


def rows_outcome(rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return (key, style) -> (status, error type, output digest) of a manifest's rows."""
    return {(row["key"], row["style"]): (row["status"], row["error_type"], row["output_sha256"]) for row in rows}
