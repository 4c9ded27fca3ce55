"""``stylemill.Manifest``: what committed runs wrote, as tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stylemill.cli.terminal import by_status
from stylemill.errors import ConfigError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import CommittedRun, committed_runs, find_run, load_history, load_success, read_manifest
from stylemill.manifest.schema import MANIFEST_SCHEMA
from stylemill.storage import Storage, StorageOptions, resolve

if TYPE_CHECKING:
    import pandas as pd

    from stylemill.auditing.check_part import Problem


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Result of ``Manifest.verify``, over all its runs."""

    num_rows: int
    num_objects: int
    """Objects whose existence and size were checked."""
    num_bytes: int
    """Bytes whose SHA-256 was checked."""
    problems: tuple[Problem, ...]
    """What differs from the manifest; ``kind``, ``uri``, ``detail``, ``key`` and ``style`` of each."""

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


class Manifest:
    """The rows of committed runs: one for each source and style.

    ``Manifest.open(OUT)`` is the current state of an output: of several runs over the same sources, the newest row of
    each key and style counts. ``Manifest.open("OUT/manifests/RUN_ID")`` is one run. All rows are held in memory, about
    half a gigabyte for each million; larger manifests are better read with DuckDB or Ray Data (docs/manifest.md).
    """

    def __init__(self, runs: Sequence[CommittedRun], storage: Storage) -> None:
        self._runs, self._storage = tuple(runs), storage
        self._table: pa.Table | None = None

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, storage: StorageOptions | None = None) -> Manifest:
        """Open the manifest at a location; rows are read when they are first needed.

        Args:
            uri: an output location, ``OUT/manifests/RUN_ID`` or ``OUT/runs/RUN_ID``.
            storage: endpoint, region and profile of object storage.

        Raises:
            ConfigError: there is no committed run.
            StorageError: storage failed beyond its retries.
        """
        store, location = Storage(storage or StorageOptions()), resolve(os.fspath(uri))
        runs = load_history(store, location) if committed_runs(store, location) else []
        if not runs:
            layout = find_run(store, location)
            runs = [CommittedRun(layout=layout, success=load_success(store, layout))]
        return cls(runs, store)

    @property
    def run_ids(self) -> list[str]:
        """The committed runs, oldest first."""
        return [run.layout.run_id for run in self._runs]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status: ``ok``, ``failed``, ``skipped``."""
        return by_status(Counter(self.to_arrow().column("status").to_pylist()))

    def to_arrow(self) -> pa.Table:
        """Return all rows (columns: docs/manifest.md), in order of runs, then of keys.

        Raises:
            StorageError: a part is missing, or is not the one that was committed.
        """
        if self._table is None:
            tables = [read_manifest(self._storage, run.layout) for run in self._runs]
            self._table = tables[0] if len(tables) == 1 else _newest(tables, [run.success.input for run in self._runs])
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def failures(self) -> pd.DataFrame:
        """Return the rows of sources that failed; ``error_type`` and ``error`` say why."""
        table = self.to_arrow()
        return table.filter(pc.equal(table.column("status"), "failed")).to_pandas()

    def verify(self, sample: float = 1.0) -> Verified:
        """Check each run's parts, rows and objects, as ``stylemill manifest verify`` does.

        Args:
            sample: fraction of the objects whose content is read, from 0 to 1.

        Raises:
            ConfigError: ``sample`` is out of range.
            StorageError: storage failed beyond its retries.
        """
        if not 0 <= sample <= 1:
            raise ConfigError("sample", sample, "is out of range", "give a number from 0 to 1")
        from stylemill.auditing.verify import MAX_PARTS_WITHOUT_RAY, verify

        found = []
        for run in self._runs:
            # Ray's machines may not see this one's files, and the outputs on one machine are mostly small.
            with_ray = len(run.success.parts) > MAX_PARTS_WITHOUT_RAY
            found.append(verify(self._storage.options, run.layout, sample=sample, with_ray=with_ray))
        return Verified(
            num_rows=sum(one.num_rows for one in found),
            num_objects=sum(one.num_objects for one in found),
            num_bytes=sum(one.num_bytes for one in found),
            problems=tuple(dict.fromkeys(problem for one in found for problem in one.problems)),
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items())
        return f"Manifest({counts}; {len(self._runs)} run{'s' * (len(self._runs) != 1)} in {self._layout.out})"

    @property
    def _layout(self) -> RunLayout:
        return self._runs[-1].layout


def _newest(tables: Sequence[pa.Table], inputs: Sequence[str]) -> pa.Table:
    """Return of each input, key and style only the row of the newest run; tables are in order of age, oldest first."""
    last: dict[tuple[str, str, str], int] = {}
    for index, (table, source_root) in enumerate(zip(tables, inputs, strict=True)):
        for key, style in zip(table.column("key").to_pylist(), table.column("style").to_pylist(), strict=True):
            last[source_root, key, style] = index
    kept = []
    for index, (table, source_root) in enumerate(zip(tables, inputs, strict=True)):
        names = zip(table.column("key").to_pylist(), table.column("style").to_pylist(), strict=True)
        kept.append(
            table.filter(pa.array([last[source_root, key, style] == index for key, style in names], pa.bool_()))
        )
    return pa.concat_tables(kept) if kept else MANIFEST_SCHEMA.empty_table()
