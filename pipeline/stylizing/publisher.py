"""Publishing beside the painting: while actors paint one wave of shards, the parts of the wave before are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from pipeline.manifest.commit import Part, commit_part, committed_part, missing_keys
from pipeline.manifest.layout import RunLayout
from pipeline.storage import Storage
from pipeline.storage.lease import HeldLease

CONCURRENT_SHARDS = 8
"""Shards whose small objects are read at once; each takes a hundred requests, one after another."""


class Publisher:
    """Knows what each shard of the plan lacks, and writes the parts of those that lack nothing.

    Args:
        storage: where the run lies.
        layout: of the run.
        styles: names of the run's styles.
        lease: under which parts are written.
    """

    def __init__(self, storage: Storage, layout: RunLayout, styles: Sequence[str], lease: HeldLease) -> None:
        self._storage, self._layout, self._styles, self._lease = storage, layout, styles, lease
        self._pool = ThreadPoolExecutor(CONCURRENT_SHARDS, thread_name_prefix="publish")
        self._under_way: dict[int, Future[Part | None]] = {}
        self._parts: dict[int, Part] = {}

    @property
    def parts(self) -> list[Part]:
        """The parts that stand, in the order of the plan."""
        return [self._parts[shard] for shard in sorted(self._parts)]

    def missing(self, shards: Iterable[int]) -> dict[int, pa.Table]:
        """Return the planned rows that are not painted yet, for each shard that has no part."""
        shards = list(shards)
        tables = dict(zip(shards, self._pool.map(self._missing, shards), strict=True))
        return {shard: table for shard, table in tables.items() if table is not None}

    def _missing(self, shard: int) -> pa.Table | None:
        part = committed_part(self._storage, self._layout, shard)
        if part is None:
            return missing_keys(self._storage, self._layout, shard)
        self._parts[shard] = part
        return None

    def publish(self, shards: Iterable[int]) -> None:
        """Begin to write the parts of shards that have just been painted, and return at once."""
        for shard in shards:
            self._under_way[shard] = self._pool.submit(self._publish, shard)

    def _publish(self, shard: int) -> Part | None:
        self._lease.check()
        return commit_part(self._storage, self._layout, shard, self._styles)

    def settle(self) -> list[int]:
        """Wait for what is under way; return the shards that still lack rows, and so have no part.

        Raises:
            RunConflict: the lease was lost.
            StorageError: pending rows that the plan does not know, or storage failed beyond its retries.
        """
        unfinished = []
        for shard, future in self._under_way.items():
            part = future.result()
            if part is None:
                unfinished.append(shard)
            else:
                self._parts[shard] = part
        self._under_way = {}
        return unfinished

    def stop(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._pool.shutdown(cancel_futures=True)
