"""What all committed runs of an output together say: the newest row of each key and style."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.manifest.commit import Success
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.read import committed_runs, iter_parts, load_success
from pipeline.storage import Storage

Row = dict[str, Any]

_COLUMNS = (
    "key",
    "style",
    "status",
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
        input_uri: leave out runs over other sources (see ``run.json``); None for all.
    """
    layouts = [RunLayout(out=out, run_id=run_id) for run_id in committed_runs(storage, out)]
    runs = [CommittedRun(layout=layout, success=load_success(storage, layout)) for layout in layouts]
    if input_uri is not None:
        runs = [run for run in runs if run.success.input == input_uri]
    return sorted(runs, key=lambda run: (run.success.finished_at, run.layout.run_id))


def newest_rows(
    storage: Storage, runs: Sequence[CommittedRun], styles: Sequence[str]
) -> Iterator[tuple[str, list[Row]]]:
    """Yield, in order of key, each key with its newest row per style.

    Merges the runs' parts, which are in order of key, holding one part of each run in memory.

    Args:
        storage: where the runs are.
        runs: oldest first.
        styles: the styles that matter.
    """
    streams = [_rows(storage, run, age) for age, run in enumerate(runs)]
    merged = heapq.merge(*streams, key=lambda item: item[0])
    for key, items in groupby(merged, key=lambda item: item[0]):
        newest: dict[str, tuple[int, Row]] = {}
        for _, age, row in items:
            style = row["style"]
            if style in styles and (style not in newest or newest[style][0] < age):
                newest[style] = (age, row)
        if newest:
            yield key, [row for _, row in newest.values()]


def _rows(storage: Storage, run: CommittedRun, age: int) -> Iterator[tuple[str, int, Row]]:
    for table in iter_parts(storage, run.layout, run.success):
        for row in table.select(_COLUMNS).to_pylist():
            yield row["key"], age, row
