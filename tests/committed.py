"""Committed runs made without Ray and without painting: the objects hold words instead of pictures."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stylemill.manifest.commit import (
    PlanSummary,
    Success,
    commit_part,
    complete_plan,
    write_pending,
    write_shard,
    write_success,
)
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import PLAN_SCHEMA, SCHEMA_VERSION, make_table
from stylemill.storage import Storage, join


def planned(key: str, **columns: Any) -> dict[str, Any]:
    """Return a row of a plan."""
    return {"key": key, "uri": f"/in/{key}", "size_bytes": len(key), "etag": "e", "attempt": 1, **columns}


def row(layout: RunLayout, key: str, style: str = "waves", data: bytes | None = None, **columns: Any) -> dict[str, Any]:
    """Return a row of a manifest about the object that holds ``data``."""
    data = f"{style} over {key}".encode() if data is None else data
    return {
        "key": key,
        "source_uri": f"/in/{key}",
        "source_bytes": len(key),
        "source_etag": "e",
        "status": "ok",
        "output_uri": join(layout.images_uri(style), key),
        "output_bytes": len(data),
        "output_sha256": hashlib.sha256(data).hexdigest(),
        "output_format": "jpeg",
        "style": style,
        "style_version": "1",
        "model_sha256": "ab" * 32,
        "fingerprint": "f",
        "run_id": layout.run_id,
        "attempt": 1,
        "finished_at": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        **columns,
    }


def failed_row(layout: RunLayout, key: str, style: str = "waves", error_type: str = "Truncated") -> dict[str, Any]:
    """Return a row of a manifest about a source that could not be done."""
    no_output = dict.fromkeys(("output_uri", "output_bytes", "output_sha256", "output_format"))
    return row(layout, key, style, status="failed", error_type=error_type, error="no", **no_output)


def skipped_row(layout: RunLayout, key: str, style: str = "waves") -> dict[str, Any]:
    """Return a row of a manifest about a source that is a text."""
    return failed_row(layout, key, style, "Text") | {"status": "skipped"}


def paint(storage: Storage, layout: RunLayout, shard: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write the objects of rows, then the rows."""
    for one in rows:
        if one["status"] == "ok":
            storage.write_bytes(one["output_uri"], f"{one['style']} over {one['key']}".encode())
    write_pending(storage, layout, shard, rows)


def commit_run(
    storage: Storage,
    out: str,
    run_id: str = "r1",
    shards: Sequence[Sequence[str]] = (("a.jpg", "b/c.jpg"), ("d.jpg",)),
    styles: Sequence[str] = ("waves",),
    finished_at: str = "2026-03-01T00:00:00+00:00",
    failed: Collection[str] = (),
    sequence: int = 0,
    input_uri: str = "/in",
    fingerprint: str = "f",
    skipped: Collection[str] = (),
    etags: Mapping[str, str] | None = None,
) -> RunLayout:
    """Plan, paint and commit a run; the sources in ``failed`` could not be done, those in ``skipped`` are text."""
    layout, parts = RunLayout(out=out, run_id=run_id), []
    for shard, keys in enumerate(shards):
        known = {key: (etags or {}).get(key, "e") for key in keys}
        rows = [planned(key, etag=etag) for key, etag in known.items()]
        write_shard(storage, layout, shard, make_table(rows, PLAN_SCHEMA))
        makers = [(failed_row if key in failed else skipped_row if key in skipped else row, key) for key in keys]
        own = {"fingerprint": fingerprint}
        rows = [make(layout, key, style) for make, key in makers for style in styles]
        paint(storage, layout, shard, [one | own | {"source_etag": known[one["key"]]} for one in rows])
        part = commit_part(storage, layout, shard, styles)
        assert part is not None
        parts.append(part)
    num_sources = sum(map(len, shards))
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    complete_plan(storage, layout, PlanSummary(num_shards=len(shards), num_sources=num_sources, num_bytes=1))
    success = Success(
        run_id=run_id,
        input=input_uri,
        fingerprint=fingerprint,
        parent_run_id=None,
        schema_version=SCHEMA_VERSION,
        styles=[
            {"name": style, "version": "1", "model_sha256": "ab" * 32, "fingerprint": fingerprint} for style in styles
        ],
        num_sources=num_sources,
        counts=dict(counts),
        parts=parts,
        finished_at=finished_at,
        sequence=sequence,
    )
    assert write_success(storage, layout, success)
    return layout
