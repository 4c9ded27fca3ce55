"""The frozen list of a run's sources: immutable shards in key order, ended by ``_COMPLETE``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa

from pipeline.errors import ObjectNotFound, RunConflict
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.schema import PLAN_SCHEMA, from_parquet, to_parquet
from pipeline.storage import Storage

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
