"""Reading committed manifests: one run, or the history of all runs of an output location.

Only the parts that ``_SUCCESS`` lists are read, and each is checked against its digest. The current state of an output
is the newest committed row of each key and style, over all runs in the order of their commits.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.commit import Success, read_success
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, from_parquet
from stylemill.storage import Storage, join
from stylemill.storage.uri import name, parent, resolve


def find_run(storage: Storage, uri: str) -> RunLayout:
    """Return the committed run at a location.

    Args:
        storage: where to look.
        uri: a manifest folder (``OUT/manifests/RUN``), its ``_SUCCESS``, a run folder, or an output location that
            holds one committed run.

    Raises:
        ConfigError: there is no committed run, or there are several.
    """
    uri = resolve(uri)
    if name(uri) == "_SUCCESS":
        uri = parent(uri)
    for folder in ("manifests", "runs"):
        if name(parent(uri)) == folder:
            layout = RunLayout(out=parent(parent(uri)), run_id=name(uri))
            if storage.exists(layout.success_uri):
                return layout
            raise ConfigError("uri", uri, "is not a committed run", "run the same stylize command again to finish it")
    run_ids = committed_runs(storage, uri)
    if len(run_ids) == 1:
        return RunLayout(out=uri, run_id=run_ids[0])
    if not run_ids:
        raise ConfigError(
            "uri", uri, "holds no committed manifest", "give OUT or OUT/manifests/RUN_ID of a finished run"
        )
    choices = ", ".join(join(uri, "manifests", run_id) for run_id in run_ids[:5])
    raise ConfigError("uri", uri, f"holds {len(run_ids)} committed runs", f"give one of {choices}")


def committed_runs(storage: Storage, out: str) -> list[str]:
    """Return the ids of the committed runs of an output location, in order of id."""
    found = (item.key for item in storage.list_objects(join(out, "manifests")))
    return sorted(key.split("/")[0] for key in found if key.count("/") == 1 and key.endswith("/_SUCCESS"))


def load_success(storage: Storage, layout: RunLayout) -> Success:
    """Return a committed run's ``_SUCCESS``.

    Raises:
        ConfigError: the run is not committed.
    """
    success = read_success(storage, layout)
    if success is None:
        cure = "run the same stylize command again to finish it"
        raise ConfigError("run_id", layout.run_id, "is not committed", cure)
    return success


def iter_parts(storage: Storage, layout: RunLayout, success: Success) -> Iterator[pa.Table]:
    """Yield the rows of each committed part as a table of MANIFEST_SCHEMA.

    Raises:
        StorageError: a part is missing or is not the one that was committed.
    """
    for part in success.parts:
        uri = join(layout.manifest_uri, part.name)
        data = storage.read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise StorageError(f"{uri} is not the part that was committed (its SHA-256 differs); restore it")
        yield from_parquet(data, MANIFEST_SCHEMA)


def read_manifest(storage: Storage, layout: RunLayout) -> pa.Table:
    """Return all rows of a committed run as one table of MANIFEST_SCHEMA."""
    tables = list(iter_parts(storage, layout, load_success(storage, layout)))
    return pa.concat_tables(tables) if tables else MANIFEST_SCHEMA.empty_table()


# The history of an output location

Row = dict[str, Any]

_HISTORY_COLUMNS = (
    "key",
    "style",
    "status",
    "error_type",
    "fingerprint",
    "source_etag",
    "source_bytes",
    "source_uri",
    "attempt",
    "output_uri",
)


@dataclass(frozen=True, kw_only=True)
class CommittedRun:
    """One committed run of an output location."""

    layout: RunLayout
    success: Success


def load_history(storage: Storage, out: str, input_uri: str | None = None) -> list[CommittedRun]:
    """Return the committed runs of an output location, oldest first.

    Args:
        storage: where to look.
        out: resolved output location.
        input_uri: only runs over these sources; None for all.
    """
    layouts = [RunLayout(out=out, run_id=run_id) for run_id in committed_runs(storage, out)]
    runs = [CommittedRun(layout=layout, success=load_success(storage, layout)) for layout in layouts]
    if input_uri is not None:
        runs = [run for run in runs if run.success.input == input_uri]
    return sorted(runs, key=lambda run: (run.success.sequence, run.success.finished_at, run.layout.run_id))


def newest_rows(
    storage: Storage, runs: Sequence[CommittedRun], styles: Sequence[str], *, of_newest_run: bool = False
) -> Iterator[tuple[str, list[Row]]]:
    """Yield each key with its newest row per style, in order of key.

    Merges the parts of the runs, which are in order of key, with one part of each run in memory.

    Args:
        storage: gives access to the runs.
        runs: oldest first.
        styles: rows of other styles are left out.
        of_newest_run: yield only rows of the newest run that has the key, where each source has one style.
    """
    streams = [_rows(storage, run, age) for age, run in enumerate(runs)]
    merged = heapq.merge(*streams, key=lambda item: item[0])
    for key, items in groupby(merged, key=lambda item: item[0]):
        newest: dict[str, tuple[int, Row]] = {}
        for _, age, row in items:
            style = row["style"]
            if style in styles and (style not in newest or newest[style][0] < age):
                newest[style] = (age, row)
        last = max((age for age, _ in newest.values()), default=0)
        if newest:
            yield key, [row for age, row in newest.values() if age == last or not of_newest_run]


def _rows(storage: Storage, run: CommittedRun, age: int) -> Iterator[tuple[str, int, Row]]:
    for table in iter_parts(storage, run.layout, run.success):
        for row in table.select(_HISTORY_COLUMNS).to_pylist():
            yield row["key"], age, row
