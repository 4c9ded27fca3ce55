"""The frozen list of a run's sources: immutable shards in key order, ended by ``_COMPLETE``.

Rows of finished sources that wait for their part to be committed.

Publishing: one part per plan shard with exactly one row per source and style, ``_SUCCESS`` last.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stylemill.errors import ObjectNotFound, RunConflict, StorageError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, PLAN_SCHEMA, SCHEMA_VERSION, from_parquet, make_table, to_parquet
from stylemill.storage import Storage, join

ROWS_PER_SHARD = 4096
"""Sources of one plan shard, and so rows per style of one manifest part."""


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """What ``_COMPLETE`` says of a plan."""

    num_shards: int
    num_sources: int
    num_bytes: int


def write_shard(storage: Storage, layout: RunLayout, shard: int, table: pa.Table) -> None:
    """Write one shard; a shard that exists already must stay as it is.

    Raises:
        RunConflict: the shard exists with other sources (another process plans this run).
    """
    uri = layout.plan_shard_uri(shard)
    if not storage.create_bytes(uri, to_parquet(table)) and not read_shard(storage, layout, shard).equals(table):
        raise RunConflict(f"{uri} was written with other sources by another process; run the command again")


def read_shard(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return one shard of the plan as a table of PLAN_SCHEMA."""
    return from_parquet(storage.read_bytes(layout.plan_shard_uri(shard)), PLAN_SCHEMA)


def iter_shards(storage: Storage, layout: RunLayout) -> Iterator[int]:
    """Yield the numbers of the shards that exist, in order."""
    for found in storage.list_objects(layout.plan_uri):
        if found.key.startswith("shard-"):
            yield int(found.key.removeprefix("shard-").removesuffix(".parquet"))


def complete_plan(storage: Storage, layout: RunLayout, summary: PlanSummary) -> None:
    """End planning."""
    storage.write_bytes(layout.plan_complete_uri, json.dumps(asdict(summary), indent=1).encode(), durable=True)


def read_plan_summary(storage: Storage, layout: RunLayout) -> PlanSummary | None:
    """Return what ``_COMPLETE`` says, or None while planning has not ended."""
    try:
        data = storage.read_bytes(layout.plan_complete_uri)
    except ObjectNotFound:
        return None
    return PlanSummary(**json.loads(data))


FLUSH_ROWS = 32
FLUSH_SECONDS = 10.0


def write_pending(storage: Storage, layout: RunLayout, shard: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write finished rows of one shard under a name of their own. All rows of a source go into one call."""
    uri = join(layout.pending_shard_uri(shard), f"{secrets.token_hex(8)}.parquet")
    storage.write_bytes(uri, to_parquet(make_table(rows, MANIFEST_SCHEMA)), durable=True)


def read_pending(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return all pending rows of one shard, duplicates included, as a table of MANIFEST_SCHEMA."""
    tables = [
        from_parquet(storage.read_bytes(found.uri), MANIFEST_SCHEMA)
        for found in storage.list_objects(layout.pending_shard_uri(shard))
    ]
    return pa.concat_tables(tables) if tables else MANIFEST_SCHEMA.empty_table()


def remove_pending(storage: Storage, layout: RunLayout) -> None:
    """Remove what a committed manifest made useless."""
    remove_all(storage, layout.pending_uri)


def remove_all(storage: Storage, prefix_uri: str) -> None:
    """Remove every object below a prefix."""
    storage.delete_all(found.uri for found in storage.list_objects(prefix_uri))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One committed Parquet file, as ``_SUCCESS`` lists it."""

    name: str
    rows: int
    sha256: str
    counts: dict[str, int]
    """Rows by status."""
    errors: dict[str, int] = field(default_factory=dict)
    """Rows by error type."""


@dataclass(frozen=True, kw_only=True)
class Success:
    """The content of ``_SUCCESS``."""

    run_id: str
    input: str
    """Location of the sources."""
    fingerprint: str
    parent_run_id: str | None
    schema_version: int
    styles: list[dict[str, str]]
    """Name, version and model digest of each style."""
    num_sources: int
    counts: dict[str, int]
    parts: list[Part]
    finished_at: str
    """UTC, ISO 8601."""

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)


def missing_keys(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return the rows of a plan shard that have no finished rows yet, in key order."""
    plan = read_shard(storage, layout, shard)
    done = read_pending(storage, layout, shard).column("key")
    return plan.filter(pc.invert(pc.is_in(plan.column("key"), value_set=done.combine_chunks())))


def commit_part(storage: Storage, layout: RunLayout, shard: int, styles: Sequence[str]) -> Part | None:
    """Publish one shard's part, or return None while rows are missing. A part that exists is taken as it is.

    A source that was done twice (its worker died after flushing it, or two workers raced) has several rows; the one
    whose digest is that of the object that stands in storage is kept.

    Raises:
        StorageError: pending rows that the plan does not know, or storage failed beyond its retries.
    """
    plan = read_shard(storage, layout, shard)
    rows = _one_row_each(storage, read_pending(storage, layout, shard))
    if not (_all_in(rows, "key", plan.column("key")) and _all_in(rows, "style", pa.array(styles, pa.string()))):
        raise StorageError(
            f"{layout.pending_shard_uri(shard)} holds rows that the plan does not; restore the run folder"
        )
    if rows.num_rows != plan.num_rows * len(styles):
        return None
    data = to_parquet(rows.sort_by([("key", "ascending"), ("style", "ascending")]))
    storage.create_bytes(layout.part_uri(shard), data)
    return committed_part(storage, layout, shard)


def _all_in(rows: pa.Table, column_name: str, known: pa.Array) -> bool:
    return pc.all(pc.is_in(rows.column(column_name), value_set=known), min_count=0).as_py() is True


def _one_row_each(storage: Storage, rows: pa.Table) -> pa.Table:
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    pairs = Counter(zip(rows.column("key").to_pylist(), rows.column("style").to_pylist(), strict=True))
    if all(count == 1 for count in pairs.values()):
        return rows
    for row in rows.to_pylist():
        pair = (row["key"], row["style"])
        if pair not in chosen or _stands_in_storage(storage, row, chosen[pair]):
            chosen[pair] = row
    return pa.Table.from_pylist(list(chosen.values()), schema=MANIFEST_SCHEMA)


def _stands_in_storage(storage: Storage, row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether ``row`` rather than ``other`` describes the object that stands in storage."""
    if row["status"] != "ok" or row["output_sha256"] == other["output_sha256"]:
        return False
    if other["status"] != "ok":
        return True
    return hashlib.sha256(storage.read_bytes(row["output_uri"])).hexdigest() == row["output_sha256"]


def committed_part(storage: Storage, layout: RunLayout, shard: int) -> Part | None:
    """Return what a published part holds, or None if it is not there; parts never change once they are."""
    if not storage.exists(layout.part_uri(shard)):
        storage.delete(layout.part_info_uri(shard))  # of a part that somebody removed
        return None
    try:
        return Part(**json.loads(storage.read_bytes(layout.part_info_uri(shard))))
    except ObjectNotFound:
        part = _read_part(storage, layout, shard)
    if part is not None:
        storage.write_bytes(layout.part_info_uri(shard), json.dumps(asdict(part)).encode(), durable=True)
    return part


def _read_part(storage: Storage, layout: RunLayout, shard: int) -> Part | None:
    try:
        data = storage.read_bytes(layout.part_uri(shard))
    except ObjectNotFound:
        return None
    rows = from_parquet(data, MANIFEST_SCHEMA)
    return Part(
        name=layout.part_name(shard),
        rows=rows.num_rows,
        sha256=hashlib.sha256(data).hexdigest(),
        counts=_count(rows.column("status")),
        errors=_count(rows.column("error_type").drop_null()),
    )


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def write_success(storage: Storage, layout: RunLayout, success: Success) -> bool:
    """Commit the manifest; tell whether this process did (False: another one had)."""
    return storage.create_bytes(layout.success_uri, json.dumps(asdict(success), indent=1).encode())


def read_success(storage: Storage, layout: RunLayout) -> Success | None:
    """Return what ``_SUCCESS`` says, or None while the run is not committed.

    Raises:
        StorageError: the file is damaged or of a newer schema.
    """
    try:
        data = storage.read_bytes(layout.success_uri)
    except ObjectNotFound:
        return None
    try:
        tree = json.loads(data)
        if tree["schema_version"] > SCHEMA_VERSION:
            raise StorageError(f"{layout.success_uri} was written by a newer stylemill; upgrade to read it")
        return Success(**{**tree, "parts": [Part(**part) for part in tree["parts"]]})
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{layout.success_uri} is damaged ({error}); restore it or repaint under a new run id"
        ) from error
