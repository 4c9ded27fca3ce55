"""Freezing the sources of a run into plan shards, resumable after the last key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.images.output_key import SUFFIXES
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.plan import (
    ROWS_PER_SHARD,
    PlanSummary,
    complete_plan,
    iter_shards,
    read_plan_summary,
    read_shard,
    write_shard,
)
from pipeline.manifest.schema import PLAN_SCHEMA, make_table
from pipeline.storage import ObjectStat, Storage
from pipeline.storage.uri import key_problem

_KNOWN_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

Finder = Callable[[str], Iterable[ObjectStat]]
"""Yields sources in order of key, after the given one."""


class TwinFinder:
    """Finds, in keys that come in order, the earlier key that a key's name extends by an image suffix.

    ``a.tif`` painted as PNG becomes ``a.tif.png``: a source of that very name would collide with it. All keys that
    begin with ``P`` follow ``P`` without a gap, so a stack of the open prefixes finds it in constant memory.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []

    def add(self, key: str, uri: str) -> str | None:
        """Take the next key; return the location of its twin, or None."""
        while self._open and not key.startswith(self._open[-1][0]):
            self._open.pop()
        stem, dot, suffix = key.rpartition(".")
        twin = None
        if dot and f".{suffix.lower()}" in _KNOWN_SUFFIXES:
            twin = next((uri for earlier, uri in self._open if earlier == stem), None)
        self._open.append((key, uri))
        return twin


def plan_row(source: ObjectStat, twin_uri: str | None, attempt: int = 1) -> dict[str, Any]:
    """Return a source as a row of PLAN_SCHEMA."""
    bad_key = key_problem(source.key)
    return {
        "key": source.key,
        "uri": source.uri,
        "size_bytes": source.size_bytes,
        "etag": source.etag,
        "twin_uri": twin_uri,
        "attempt": attempt,
        "problem_type": "BadKey" if bad_key else source.problem_type,
        "problem": f"{bad_key}; rename the source" if bad_key else source.problem,
    }


def plan_sources(storage: Storage, layout: RunLayout, find: Finder) -> Iterator[tuple[int, int]]:
    """Write the plan, yielding the number of each shard and its rows as soon as it stands; end with ``_COMPLETE``.

    Shards that a killed planner left are yielded first, and the listing continues after their last key.

    Raises:
        RunConflict: another process wrote other shards.
        StorageError: storage failed beyond its retries.
    """
    twins, last, num_sources, num_bytes, shard = TwinFinder(), "", 0, 0, 0
    for existing in iter_shards(storage, layout):
        table = read_shard(storage, layout, existing)
        for key, uri in zip(table.column("key").to_pylist(), table.column("uri").to_pylist(), strict=True):
            twins.add(key, uri)
            last = key
        num_sources += table.num_rows
        num_bytes += sum(table.column("size_bytes").to_pylist())
        shard = existing + 1
        yield existing, table.num_rows
    if read_plan_summary(storage, layout) is not None:
        return
    rows: list[dict[str, Any]] = []
    for source in find(last):
        rows.append(plan_row(source, twins.add(source.key, source.uri)))
        num_bytes += source.size_bytes
        if len(rows) == ROWS_PER_SHARD:
            write_shard(storage, layout, shard, make_table(rows, PLAN_SCHEMA))
            yield shard, len(rows)
            num_sources, shard, rows = num_sources + len(rows), shard + 1, []
    if rows:
        write_shard(storage, layout, shard, make_table(rows, PLAN_SCHEMA))
        yield shard, len(rows)
        num_sources, shard = num_sources + len(rows), shard + 1
    complete_plan(storage, layout, PlanSummary(num_shards=shard, num_sources=num_sources, num_bytes=num_bytes))
