"""Planning: freezes the sources of a run into plan shards, in order of key.

``plan_sources`` writes the shards and can resume after the last key; ``PlanningThread`` runs it in the background, so
that painting starts before the listing ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stylemill.images.options import SUFFIXES
from stylemill.manifest.commit import (
    ROWS_PER_SHARD,
    PlanSummary,
    complete_plan,
    iter_shards,
    read_plan_summary,
    read_shard,
    write_shard,
)
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import ObjectStat, Storage, StorageOptions
from stylemill.storage.hosts import host_of
from stylemill.storage.uri import key_problem, scheme

_KNOWN_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

UNKNOWN_STYLE = "UnknownStyle"
"""Type of the problem of a source for which the run has no style."""

MAX_WITNESS_SHARDS = 8
"""Shards in which ``web_locations`` looks."""
WITNESSES_PER_SHARD = 4
"""Hosts that it takes from each, if they are so many."""


@dataclass(kw_only=True)
class Source:
    """One source to be planned."""

    found: ObjectStat
    twins: tuple[Source, ...] = ()
    """Earlier sources whose results may collide with this one's."""
    attempt: int = 1
    is_planned: bool = True
    style: str | None = None
    """The style that it is painted in; None means all of the run's."""
    style_problem: str | None = None
    """Why the run has no style for it."""


Finder = Callable[[str, "TwinFinder"], Iterable[Source]]
"""Yields the sources after a key, in order; the TwinFinder has been given all sources up to that key."""


class TwinFinder:
    """Finds the twins of each source: earlier sources whose results may collide with its own.

    ``a.tif`` painted as PNG becomes ``a.tif.png``: a source of that very name would collide with it, and so would
    ``a.tif.png/b.jpg`` in a file system, as would ``a.jpg/b.jpg`` with ``a.jpg``. In order of key, all keys that begin
    with ``P`` follow ``P`` directly, so a stack of prefixes finds the twins in constant memory.
    """

    def __init__(self) -> None:
        self._open: list[Source] = []

    def add(self, found: ObjectStat) -> Source:
        """Return the next object, in order of key, as a source with its twins."""
        while self._open and not found.key.startswith(self._open[-1].found.key):
            self._open.pop()
        twins = [earlier for earlier in self._open if _may_collide(found.key[len(earlier.found.key) :])]
        source = Source(found=found, twins=tuple(twins))
        self._open.append(source)
        return source


def _may_collide(rest: str) -> bool:
    """Return whether the result of ``P`` may collide with that of ``P + rest``."""
    added, slash, _ = rest.partition("/")
    return added.lower() in _KNOWN_SUFFIXES or (slash == "/" and not added)


def plan_row(source: Source) -> dict[str, Any]:
    """Return a source as a row of PLAN_SCHEMA."""
    found = source.found
    bad_key = key_problem(found.key)
    problem_type, problem = found.problem_type, found.problem
    if problem is None and bad_key:
        problem_type, problem = "BadKey", f"{bad_key}; rename the source"
    elif problem is None and source.style_problem:
        problem_type, problem = UNKNOWN_STYLE, source.style_problem
    # Results in another style are in another folder, and those of a source without a style do not exist.
    twins = [twin for twin in source.twins if twin.style == source.style and twin.style_problem is None]
    return {
        "key": found.key,
        "uri": found.uri,
        "size_bytes": found.size_bytes,
        "etag": found.etag,
        "twins": [{"key": twin.found.key, "uri": twin.found.uri} for twin in twins] or None,
        "attempt": source.attempt,
        "problem_type": problem_type,
        "problem": problem,
        "style": source.style,
    }


def plan_sources(storage: Storage, layout: RunLayout, find: Finder) -> Iterator[tuple[int, int]]:
    """Write the plan and yield each shard's number and number of rows once it is stored; end with ``_COMPLETE``.

    Shards that a killed planner left are yielded first, and the listing continues after their last key. Without
    sources nothing is written.

    Raises:
        RunConflict: another process wrote other shards.
        StorageError: storage failed beyond its retries.
    """
    twins, totals = TwinFinder(), _Totals()
    for shard in iter_shards(storage, layout):
        table = read_shard(storage, layout, shard)
        for row in table.drop_columns(["twins", "attempt"]).to_pylist():
            earlier = twins.add(ObjectStat(row["uri"], row["key"], row["size_bytes"], row["etag"]))
            earlier.style = row["style"]
            earlier.style_problem = row["problem"] if row["problem_type"] == UNKNOWN_STYLE else None
        totals.add(table)
        yield shard, table.num_rows
    if read_plan_summary(storage, layout) is not None:
        return
    sources = iter(find(totals.last_key, twins))
    while rows := [plan_row(source) for source in islice(sources, ROWS_PER_SHARD)]:
        shard, table = totals.num_shards, make_table(rows, PLAN_SCHEMA)
        write_shard(storage, layout, shard, table)
        totals.add(table)
        yield shard, table.num_rows
    if totals.num_shards:
        complete_plan(storage, layout, totals.summary())


def web_locations(options: StorageOptions, layout: RunLayout) -> Iterator[str]:
    """Yield some locations of the web that a run reads, from all over its plan: one of each host in a few shards.

    Args:
        options: of the storage that holds the run.
        layout: of the run.

    Raises:
        StorageError: the plan cannot be read.
    """
    storage = Storage(options)  # the caller's may be waiting for this
    shards = list(iter_shards(storage, layout))
    num_read = min(MAX_WITNESS_SHARDS, len(shards))
    for number in range(num_read):
        table = read_shard(storage, layout, shards[number * (len(shards) - 1) // max(1, num_read - 1)])
        hosts = {host_of(uri): uri for uri in table.column("uri").to_pylist() if scheme(uri) in ("http", "https")}
        yield from list(hosts.values())[:: max(1, len(hosts) // WITNESSES_PER_SHARD)]


@dataclass(kw_only=True)
class _Totals:
    num_shards: int = 0
    num_sources: int = 0
    num_bytes: int = 0
    last_key: str = ""

    def add(self, table: pa.Table) -> None:
        self.num_shards += 1
        self.num_sources += table.num_rows
        self.num_bytes += pc.sum(table.column("size_bytes")).as_py() or 0
        self.last_key = table.column("key")[-1].as_py()

    def summary(self) -> PlanSummary:
        return PlanSummary(num_shards=self.num_shards, num_sources=self.num_sources, num_bytes=self.num_bytes)


Shard = tuple[int, int]
"""Number of a plan shard, and its number of rows."""


class PlanningThread:
    """Plans in a thread and hands out shards as they are stored.

    Args:
        shards: plans, and yields each shard once it is stored; ``take`` raises what it raises.
    """

    def __init__(self, shards: Callable[[], Iterable[Shard]]) -> None:
        self._queue: SimpleQueue[Shard | BaseException | None] = SimpleQueue()
        self._make = shards
        self._stopped = threading.Event()
        self._ended = False
        self.num_sources = 0
        """Sources planned so far."""
        self._thread = threading.Thread(target=self._drain, name="planner", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        try:
            for shard in self._make():
                if self._stopped.is_set():
                    return
                self.num_sources += shard[1]
                self._queue.put(shard)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by take)
            self._queue.put(error)

    def take(self, at_most: int) -> list[Shard]:
        """Wait for the next shard and return all that are stored; return an empty list once planning has ended."""
        taken: list[Shard] = []
        while len(taken) < at_most and not self._ended:
            try:
                item = self._queue.get(block=not taken)
            except Empty:
                break
            if item is None:
                self._ended = True
            elif isinstance(item, BaseException):
                raise item
            else:
                taken.append(item)
        return taken

    def stop(self) -> None:
        """Stop after the current shard; the next invocation continues after it."""
        self._stopped.set()
        self._thread.join()
