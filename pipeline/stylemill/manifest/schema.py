"""Columns of manifests and plans, and tables as Parquet bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_bytes", pa.int64()),
        pa.field("source_etag", pa.string()),
        pa.field("source_sha256", pa.string()),
        pa.field("source_format", pa.string()),
        pa.field("source_width_px", pa.int32()),
        pa.field("source_height_px", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("note", pa.string()),
        pa.field("output_uri", pa.string()),
        pa.field("output_bytes", pa.int64()),
        pa.field("output_sha256", pa.string()),
        pa.field("output_format", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("style", pa.string(), nullable=False),
        pa.field("style_version", pa.string(), nullable=False),
        pa.field("model_sha256", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("forward", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("decode_ms", pa.float32()),
        pa.field("stylize_ms", pa.float32()),
        pa.field("encode_ms", pa.float32()),
        pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""One row per planned source and style.

``note`` names what was changed in, or left out of, an ``ok`` source. Durations are in milliseconds, sizes in bytes or
pixels, points in time in UTC.
"""

PLAN_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("twins", pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("uri", pa.string())]))),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("problem_type", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("style", pa.string()),
    ]
)
"""One row per source. ``style`` is the one that it is painted in; null means all of the run's. ``twins`` are earlier
sources whose output could have the same key (``stylizing/plan.py``)."""


def make_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of exactly ``schema``; absent values become null.

    Raises:
        ValueError: a row has a column that is not in the schema.
    """
    rows = list(rows)
    names = set(schema.names)
    for row in rows:
        unknown = set(row) - names
        if unknown:
            raise ValueError(f"no such columns: {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=True)
    return sink.getvalue()


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in the bytes of a Parquet file, read in this thread alone.

    A process that ends soon after Arrow's pools have worked may abort in its exit ("terminate called without an active
    exception"), and its exit code is lost.

    Raises:
        ValueError: the bytes are not Parquet (``pyarrow.ArrowInvalid``).
    """
    names = None if columns is None else list(columns)
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(names, use_threads=False)


def from_parquet(data: bytes, schema: pa.Schema, *, later: Sequence[str] = ()) -> pa.Table:
    """Return the table in the bytes of a Parquet file, after checking its columns against ``schema``.

    Args:
        data: the file.
        schema: that it must have.
        later: columns that files of early versions lack, in the order of the schema; there they are null.

    Raises:
        ValueError: the bytes are not Parquet (``pyarrow.ArrowInvalid``), or the columns differ.
    """
    table = read_parquet(data)
    for name in later:
        if name not in table.column_names:
            nulls = pa.nulls(table.num_rows, schema.field(name).type)
            table = table.add_column(schema.get_field_index(name), schema.field(name), nulls)
    if not table.schema.equals(schema, check_metadata=False):
        raise ValueError(f"columns differ from this version's schema: {table.schema.names}")
    return table
