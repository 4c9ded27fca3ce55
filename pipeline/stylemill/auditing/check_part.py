"""Checks of one committed part: its bytes, its rows against the plan, its objects against their digests."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylemill.auditing.ownership import hash_row, hash_uri, is_in
from stylemill.errors import ObjectNotFound, StorageError
from stylemill.manifest.commit import Part, planned_pairs, read_shard
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, from_parquet
from stylemill.storage import Storage, StorageOptions, join

CONCURRENT_READS = 8
"""Objects that are read at the same time."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One difference between the manifest and storage."""

    kind: str
    """``PartChanged``, ``RowMissing``, ``ObjectMissing`` ..."""
    uri: str
    """Location of the part, plan shard or object."""
    detail: str
    """One sentence."""
    key: str | None = None
    style: str | None = None


@dataclass(kw_only=True)
class PartCheck:
    """Result of the check of one part."""

    num_rows: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    num_superseded: int = 0
    problems: list[Problem] = field(default_factory=list)
    output_hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """64-bit hashes of the locations that the part's rows own."""


def check_part(
    options: StorageOptions,
    layout: RunLayout,
    shard: int,
    part: Part,
    styles: list[str],
    superseded: NDArray[np.uint64],
    sample: float = 1.0,
) -> PartCheck:
    """Check one part.

    Args:
        options: how to reach storage.
        layout: of the run.
        shard: number of the plan shard of this part.
        part: as ``_SUCCESS`` lists it.
        styles: of the run.
        superseded: sorted hashes of style and key of rows that later runs replaced; an object of theirs that is
            missing or damaged is no problem.
        sample: fraction of the objects to read; their locations alone determine which ones.

    Raises:
        StorageError: storage failed beyond its retries.
    """
    storage, check = Storage(options), PartCheck()
    uri = join(layout.manifest_uri, part.name)
    try:
        data = storage.read_bytes(uri)
    except ObjectNotFound:
        check.problems.append(Problem(kind="PartMissing", uri=uri, detail="_SUCCESS lists it, but it does not exist"))
        return check
    if hashlib.sha256(data).hexdigest() != part.sha256:
        check.problems.append(
            Problem(kind="PartChanged", uri=uri, detail="its SHA-256 differs from the one in _SUCCESS")
        )
        return check
    try:
        rows = from_parquet(data, MANIFEST_SCHEMA).to_pylist()
    except ValueError as error:
        check.problems.append(Problem(kind="PartDamaged", uri=uri, detail=f"it is not a part of a manifest ({error})"))
        return check
    check.num_rows = len(rows)
    check.problems += _compare_with_plan(storage, layout, shard, styles, rows)
    ok = [row for row in rows if row["status"] == "ok"]
    check.output_hashes = np.array([hash_uri(row["output_uri"]) for row in ok], np.uint64)
    chosen = check.output_hashes / 2.0**64 <= sample
    to_read = [row for row, is_chosen in zip(ok, chosen, strict=True) if is_chosen]
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        for row, problem in zip(
            to_read, pool.map(lambda row: _compare_with_object(storage, row), to_read), strict=True
        ):
            check.num_objects += 1
            check.num_bytes += row["output_bytes"]
            if problem and is_in(np.array([hash_row(row["style"], row["key"])], np.uint64), superseded)[0]:
                check.num_superseded += 1
            elif problem:
                check.problems.append(problem)
    return check


def _compare_with_plan(
    storage: Storage, layout: RunLayout, shard: int, styles: list[str], rows: list[dict[str, Any]]
) -> list[Problem]:
    uri = layout.plan_shard_uri(shard)
    try:
        planned = planned_pairs(read_shard(storage, layout, shard), styles)
    except ObjectNotFound:
        return [Problem(kind="PlanMissing", uri=uri, detail="the plan shard of this part does not exist")]
    except ValueError as error:
        return [Problem(kind="PlanDamaged", uri=uri, detail=f"the plan shard of this part is damaged ({error})")]
    found = Counter((row["key"], row["style"]) for row in rows)
    problems = [
        Problem(kind="RowMissing", uri=uri, detail="it is planned but has no row", key=key, style=style)
        for key, style in sorted(planned - found.keys())
    ]
    for (key, style), count in found.items():
        if (key, style) not in planned:
            problems.append(
                Problem(kind="RowUnplanned", uri=uri, detail="it has a row but is not planned", key=key, style=style)
            )
        elif count > 1:
            problems.append(Problem(kind="RowTwice", uri=uri, detail=f"it has {count} rows", key=key, style=style))
    return problems


def _compare_with_object(storage: Storage, row: dict[str, Any]) -> Problem | None:
    uri, key, style = row["output_uri"], row["key"], row["style"]
    try:
        data = storage.read_bytes(uri)
    except ObjectNotFound:
        return Problem(
            kind="ObjectMissing", uri=uri, detail="its row is ok, but the object does not exist", key=key, style=style
        )
    except StorageError as error:
        return Problem(kind="ObjectUnreadable", uri=uri, detail=str(error), key=key, style=style)
    if len(data) != row["output_bytes"]:
        detail = f"it has {len(data):,} bytes instead of {row['output_bytes']:,}"
        return Problem(kind="ObjectChanged", uri=uri, detail=detail, key=key, style=style)
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        detail = "its SHA-256 differs from the one in its row"
        return Problem(kind="ObjectChanged", uri=uri, detail=detail, key=key, style=style)
    return None
