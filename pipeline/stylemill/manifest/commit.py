"""Writing a run: plan shards, pending rows, parts, and ``_SUCCESS``, which commits the manifest.

The plan is the frozen list of sources, split into shards in key order; ``_COMPLETE`` ends it. Workers write the rows of
finished sources to ``pending/``. When every source of a shard has its rows, they become one part of the manifest with
exactly one row per source and style. ``_SUCCESS`` is written last and lists the parts; without it there is no manifest.

All steps can be repeated: shards and parts are created once and never change, and duplicate pending rows are resolved
when a part is built.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stylemill.errors import ObjectNotFound, RunConflict, StorageError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, PLAN_SCHEMA, SCHEMA_VERSION, from_parquet, make_table, to_parquet
from stylemill.storage import Storage, join
from stylemill.storage.json_records import record_from_json, record_to_json

ROWS_PER_SHARD = 4096
"""Sources per plan shard, and so rows per style of a manifest part."""

FLUSH_ROWS = 32
FLUSH_SECONDS = 10.0
"""A worker writes its finished rows to ``pending/`` after this many images or this time."""


# The plan


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """Content of ``_COMPLETE``."""

    num_shards: int
    num_sources: int
    num_bytes: int


def write_shard(storage: Storage, layout: RunLayout, shard: int, table: pa.Table) -> None:
    """Write one shard of the plan; a shard that exists must be equal.

    Raises:
        RunConflict: the shard exists with other sources (another process plans this run).
    """
    uri = layout.plan_shard_uri(shard)
    if not storage.create_bytes(uri, to_parquet(table)) and not read_shard(storage, layout, shard).equals(table):
        raise RunConflict(f"{uri} was written with other sources by another process; run the command again")


def read_shard(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return one shard of the plan as a table of PLAN_SCHEMA."""
    return from_parquet(storage.read_bytes(layout.plan_shard_uri(shard)), PLAN_SCHEMA, later=("style",))


def iter_shards(storage: Storage, layout: RunLayout) -> Iterator[int]:
    """Yield the numbers of the existing shards in order."""
    for found in storage.list_objects(layout.plan_uri):
        if found.key.startswith("shard-"):
            yield int(found.key.removeprefix("shard-").removesuffix(".parquet"))


def complete_plan(storage: Storage, layout: RunLayout, summary: PlanSummary) -> None:
    """End planning by writing ``_COMPLETE``."""
    storage.write_bytes(layout.plan_complete_uri, record_to_json(summary), durable=True)


def read_plan_summary(storage: Storage, layout: RunLayout) -> PlanSummary | None:
    """Return the content of ``_COMPLETE``, or None while planning has not ended.

    Raises:
        StorageError: the file is damaged.
    """
    uri = layout.plan_complete_uri
    try:
        data = storage.read_bytes(uri)
    except ObjectNotFound:
        return None
    return record_from_json(PlanSummary, data, uri, cure="remove it; the next run of the same command plans again")


# Pending rows


def write_pending(storage: Storage, layout: RunLayout, shard: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write finished rows of one shard to a new file. One call must contain all rows of a source."""
    uri = join(layout.pending_shard_uri(shard), f"{secrets.token_hex(8)}.parquet")
    storage.write_bytes(uri, to_parquet(make_table(rows, MANIFEST_SCHEMA)), durable=True)


def read_pending(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return all pending rows of one shard, duplicates included, as a table of MANIFEST_SCHEMA."""
    tables = [
        from_parquet(storage.read_bytes(found.uri), MANIFEST_SCHEMA)
        for found in storage.list_objects(layout.pending_shard_uri(shard))
    ]
    return pa.concat_tables(tables) if tables else MANIFEST_SCHEMA.empty_table()


def unfinished_sources(storage: Storage, layout: RunLayout, shard: int) -> pa.Table:
    """Return the rows of a plan shard whose sources have no pending rows yet, in key order."""
    plan = read_shard(storage, layout, shard)
    done = read_pending(storage, layout, shard).column("key")
    return plan.filter(pc.invert(pc.is_in(plan.column("key"), value_set=done.combine_chunks())))


def remove_pending(storage: Storage, layout: RunLayout) -> None:
    """Remove all pending rows of a run whose manifest is committed."""
    remove_all(storage, layout.pending_uri)


def remove_all(storage: Storage, prefix_uri: str) -> None:
    """Remove every object below a prefix."""
    storage.delete_all(found.uri for found in storage.list_objects(prefix_uri))


# Parts


@dataclass(frozen=True, kw_only=True)
class Part:
    """One committed Parquet file, as listed in ``_SUCCESS``."""

    name: str
    rows: int
    sha256: str
    counts: dict[str, int]
    """Rows by status."""
    errors: dict[str, int] = field(default_factory=dict)
    """Rows by error type."""


def commit_part(storage: Storage, layout: RunLayout, shard: int, styles: Sequence[str]) -> Part | None:
    """Publish the part of one shard, or return None while rows are missing. An existing part is kept.

    A source that was painted twice (its worker died after writing its rows, or two workers raced) has several rows; the
    row whose digest matches the stored output is kept.

    Raises:
        StorageError: there are pending rows of sources that are not in the plan, or storage failed beyond its retries.
    """
    plan = read_shard(storage, layout, shard)
    rows = _one_row_each(storage, read_pending(storage, layout, shard))
    planned = planned_pairs(plan, styles)
    if not planned.issuperset(zip(rows.column("key").to_pylist(), rows.column("style").to_pylist(), strict=True)):
        raise StorageError(
            f"{layout.pending_shard_uri(shard)} holds rows that are not in the plan; restore the run folder"
        )
    if rows.num_rows != len(planned):
        return None
    data = to_parquet(rows.sort_by([("key", "ascending"), ("style", "ascending")]))
    storage.create_bytes(layout.part_uri(shard), data)
    return committed_part(storage, layout, shard)


def planned_pairs(plan: pa.Table, styles: Sequence[str]) -> set[tuple[str, str]]:
    """Return key and style of each row that the manifest has for a shard of the plan.

    Args:
        plan: a table of PLAN_SCHEMA.
        styles: of the run.
    """
    pairs = zip(plan.column("key").to_pylist(), plan.column("style").to_pylist(), strict=True)
    return {(key, style) for key, chosen in pairs for style in ([chosen] if chosen else styles)}


def committed_part(storage: Storage, layout: RunLayout, shard: int) -> Part | None:
    """Return the description of a published part, or None if there is none; a published part never changes.

    Raises:
        StorageError: the stored description is damaged, or storage failed beyond its retries.
    """
    uri = layout.part_info_uri(shard)
    if not storage.exists(layout.part_uri(shard)):
        storage.delete(uri)  # left by a part that was removed by hand
        return None
    try:
        return record_from_json(Part, storage.read_bytes(uri), uri, cure="remove it and run the same command again")
    except ObjectNotFound:
        part = _describe_part(storage, layout, shard)
    if part is not None:
        storage.write_bytes(uri, record_to_json(part, indent=None, ensure_ascii=True), durable=True)
    return part


def _one_row_each(storage: Storage, rows: pa.Table) -> pa.Table:
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    pairs = Counter(zip(rows.column("key").to_pylist(), rows.column("style").to_pylist(), strict=True))
    if all(count == 1 for count in pairs.values()):
        return rows
    for row in rows.to_pylist():
        pair = (row["key"], row["style"])
        if pair not in chosen or _matches_stored_output(storage, row, chosen[pair]):
            chosen[pair] = row
    return pa.Table.from_pylist(list(chosen.values()), schema=MANIFEST_SCHEMA)


def _matches_stored_output(storage: Storage, row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether ``row`` rather than ``other`` describes the stored output."""
    if row["status"] != "ok" or row["output_sha256"] == other["output_sha256"]:
        return False
    if other["status"] != "ok":
        return True
    return hashlib.sha256(storage.read_bytes(row["output_uri"])).hexdigest() == row["output_sha256"]


def _describe_part(storage: Storage, layout: RunLayout, shard: int) -> Part | None:
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


# The commit


@dataclass(frozen=True, kw_only=True)
class Success:
    """Content of ``_SUCCESS``."""

    run_id: str
    input: str
    """Location of the sources."""
    fingerprint: str
    parent_run_id: str | None
    schema_version: int
    styles: list[dict[str, str]]
    """Name, version, model digest and tree of each style."""
    num_sources: int
    counts: dict[str, int]
    """Rows of all parts by status."""
    parts: list[Part]
    finished_at: str
    """UTC, ISO 8601."""
    sequence: int = 0
    """Place in the order of the output's commits (``manifest/output.py``); 0 in runs of early versions."""

    @property
    def trees(self) -> list[str]:
        """Folder below ``images/`` of each style, in the order of ``styles``."""
        return [style.get("tree") or style["name"] for style in self.styles]

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)


def write_success(storage: Storage, layout: RunLayout, success: Success) -> bool:
    """Commit the manifest; return False if another process has committed it before."""
    return storage.create_bytes(layout.success_uri, record_to_json(success, ensure_ascii=True))


def read_success(storage: Storage, layout: RunLayout) -> Success | None:
    """Return the content of ``_SUCCESS``, or None while the run is not committed.

    Raises:
        StorageError: the file is damaged or has a newer schema.
    """
    uri = layout.success_uri

    def build(*, schema_version: int, parts: list[dict[str, Any]], **others: Any) -> Success:
        if schema_version > SCHEMA_VERSION:
            raise StorageError(f"{uri} was written by a newer stylemill; upgrade to read it")
        return Success(schema_version=schema_version, parts=[Part(**part) for part in parts], **others)

    try:
        data = storage.read_bytes(uri)
    except ObjectNotFound:
        return None
    return record_from_json(build, data, uri, cure="restore it or repaint under a new run id")
