"""Rows of finished sources that wait for their part to be committed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.manifest.layout import RunLayout
from pipeline.manifest.schema import MANIFEST_SCHEMA, from_parquet, make_table, to_parquet
from pipeline.storage import Storage, join

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
