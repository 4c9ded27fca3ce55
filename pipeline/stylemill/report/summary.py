"""Statistics of a bulk run from its manifest, computed part by part so that memory does not grow with the run.

``summarize`` reads the parts; ``choose_candidates`` picks the rows whose images the page shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STAGES = ("decode_ms", "stylize_ms", "encode_ms")
_MAX_TROUBLES = 200
_MAX_CANDIDATES = 400
_MAX_PAIR_PX = 40_000_000
_PAIR_COLUMNS = (
    "key",
    "style",
    "source_uri",
    "output_uri",
    "output_format",
    "width_px",
    "height_px",
)
# Logarithmic bins of 2 % from a microsecond to three hours, in milliseconds.
_BIN_RATIO = 1.02
_BIN_FROM_MS = 1e-3
_NUM_BINS = 1170
_PAUSE_S = 60
"""A longer time between two rows means that the run was stopped and resumed."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One source that was not repainted, and the reason."""

    key: str
    source_uri: str
    style: str
    status: str
    error_type: str
    error: str

    @property
    def folder(self) -> str:
        """Folder of the key; empty at the top."""
        return self.key.rpartition("/")[0]


class Durations:
    """Quantiles of the times of a stage from a histogram, exact to 2 percent."""

    def __init__(self) -> None:
        self._bins = np.zeros(_NUM_BINS, dtype=np.int64)
        self.total_ms = 0.0
        self.num_values = 0

    def add(self, values_ms: np.ndarray) -> None:
        """Add times in milliseconds; NaN and negative values are ignored."""
        values = values_ms[np.isfinite(values_ms) & (values_ms >= 0.0)]
        place = np.log(np.maximum(values, _BIN_FROM_MS) / _BIN_FROM_MS) / np.log(_BIN_RATIO)
        self._bins += np.bincount(np.clip(place.astype(int), 0, _NUM_BINS - 1), minlength=_NUM_BINS)
        self.total_ms += float(values.sum())
        self.num_values += len(values)

    def quantile(self, fraction: float) -> float | None:
        """Return a quantile of the times in milliseconds, or None if there are no times."""
        if self.num_values == 0:
            return None
        reached = np.searchsorted(np.cumsum(self._bins), fraction * self.num_values)
        return float(_BIN_FROM_MS * _BIN_RATIO ** (min(int(reached), _NUM_BINS - 1) + 0.5))


@dataclass(kw_only=True)
class BulkSummary:
    """Statistics of a manifest for its page."""

    num_rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of rows by (status, error_type)."""
    styles: Counter[str] = field(default_factory=Counter)
    troubles: list[Trouble] = field(default_factory=list)
    """The first rows that are not ok, failed before skipped."""
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """Rows with status ok at regular steps, from which the page chooses its pairs."""
    source_bytes: int = 0
    output_bytes: int = 0
    output_px: int = 0
    stages: dict[str, Durations] = field(default_factory=lambda: {name: Durations() for name in STAGES})
    finished_by_second: Counter[int] = field(default_factory=Counter)
    """Number of rows by the Unix time in seconds at which they were finished."""
    first_us: int = 0
    """Time at which the first row was finished, in microseconds since 1970 UTC."""
    last_us: int = 0
    """Time at which the last row was finished, in microseconds since 1970 UTC."""

    @property
    def num_troubles(self) -> int:
        """Number of rows that failed or were skipped, including those not listed."""
        return self.num_rows - self.statuses["ok"]

    @property
    def active_s(self) -> float:
        """Seconds from the first row to the last, without pauses of more than a minute between rows."""
        seconds = sorted(self.finished_by_second)
        paused = sum(gap for gap in (late - early for early, late in pairwise(seconds)) if gap > _PAUSE_S)
        return max(0.0, (self.last_us - self.first_us) / 1e6 - paused) if seconds else 0.0

    @property
    def images_per_s(self) -> float | None:
        """Rows per second of ``active_s``, not counting the first row; None if the run was shorter than 0.5 s."""
        return (self.num_rows - 1) / self.active_s if self.active_s >= 0.5 else None

    def pace(self, max_bins: int = 120) -> tuple[list[float], list[float]]:
        """Return (seconds since the first row, rows per second); a pause counts as _PAUSE_S."""
        seconds = sorted(self.finished_by_second)
        if len(seconds) < 2:
            return [], []
        moved, clock = [0.0], 0.0
        for earlier, later in pairwise(seconds):
            clock += min(later - earlier, _PAUSE_S)
            moved.append(clock)
        width = max(1.0, clock / max_bins)
        counts = np.zeros(int(clock / width) + 1)
        for second, at in zip(seconds, moved, strict=True):
            counts[int(at / width)] += self.finished_by_second[second]
        # The last bin covers less time than the others; its rate would be too low.
        kept = max(1, len(counts) - 1)
        return [(index + 0.5) * width for index in range(kept)], [float(n / width) for n in counts[:kept]]


def summarize(parts: pa.Table | Iterable[pa.Table]) -> BulkSummary:
    """Compute the statistics of a manifest.

    Args:
        parts: rows with the manifest's columns, in one table or part by part; only one part is in memory at a time.

    Returns:
        Counts, quantiles, the first rows that are not ok, and candidates for pairs.
    """
    summary = BulkSummary()
    failed: list[Trouble] = []
    skipped: list[Trouble] = []
    stride = 1
    for table in [parts] if isinstance(parts, pa.Table) else parts:
        _count(summary, table)
        for status, bucket in (("failed", failed), ("skipped", skipped)):
            bucket.extend(_troubles(table, status, _MAX_TROUBLES - len(bucket)))
        done = table.filter(pc.equal(table["status"], "ok"))
        summary.candidates.extend(_every(done, stride))
        while len(summary.candidates) > _MAX_CANDIDATES:
            summary.candidates = summary.candidates[::2]
            stride *= 2
    summary.troubles = (failed + skipped)[:_MAX_TROUBLES]
    return summary


def _every(done: pa.Table, stride: int) -> list[dict[str, Any]]:
    """Return every ``stride``-th row with the columns that a pair needs."""
    places = pa.array(range(0, done.num_rows, stride), pa.int64())
    return done.select(list(_PAIR_COLUMNS)).take(places).to_pylist()


def _count(summary: BulkSummary, table: pa.Table) -> None:
    summary.num_rows += table.num_rows
    for counter, column in (
        (summary.statuses, "status"),
        (summary.styles, "style"),
    ):
        counter.update(_value_counts(table[column]))
    bad = table.filter(pc.not_equal(table["status"], "ok"))
    for row in bad.group_by(["status", "error_type"]).aggregate([([], "count_all")]).to_pylist():
        summary.errors[row["status"], row["error_type"] or "unknown"] += row["count_all"]
    done = table.filter(pc.equal(table["status"], "ok"))
    summary.source_bytes += pc.sum(done["source_bytes"]).as_py() or 0
    summary.output_bytes += pc.sum(done["output_bytes"]).as_py() or 0
    width, height = done["width_px"].cast(pa.int64()), done["height_px"].cast(pa.int64())
    summary.output_px += pc.sum(pc.multiply(width, height)).as_py() or 0
    for name in STAGES:
        summary.stages[name].add(done[name].cast(pa.float64()).to_numpy())
    _count_instants(summary, table["finished_at"])


def _count_instants(summary: BulkSummary, finished_at: pa.ChunkedArray) -> None:
    instants_us = finished_at.drop_null().cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    if len(instants_us) == 0:
        return
    first, last = int(instants_us.min()), int(instants_us.max())
    known = bool(summary.finished_by_second)
    summary.first_us = min(summary.first_us, first) if known else first
    summary.last_us = max(summary.last_us, last) if known else last
    seconds, counts = np.unique(instants_us // 1_000_000, return_counts=True)
    summary.finished_by_second.update(dict(zip(seconds.tolist(), counts.tolist(), strict=True)))


def _value_counts(column: pa.ChunkedArray) -> Mapping[Any, int]:
    pairs = pc.value_counts(column.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}


def _troubles(table: pa.Table, status: str, limit: int) -> list[Trouble]:
    if limit <= 0:
        return []
    rows = table.filter(pc.equal(table["status"], status)).slice(0, limit)
    return [
        Trouble(
            key=row["key"],
            source_uri=row["source_uri"],
            style=row["style"],
            status=row["status"],
            error_type=row["error_type"] or "unknown",
            error=row["error"] or "no reason was recorded",
        )
        for row in rows.select(["key", "source_uri", "style", "status", "error_type", "error"]).to_pylist()
    ]


def choose_candidates(summary: BulkSummary, num_pairs: int, *, first_key: str | None = None) -> list[dict[str, Any]]:
    """Choose rows for pairs, spread over styles and folders, in order of style and key.

    Rows above 40 megapixels are left out, because reading their images would take too long for a page.

    Args:
        summary: statistics of the run.
        num_pairs: maximum number of rows.
        first_key: key to put first, if it is among the rows.

    Returns:
        Rows with the manifest's columns.
    """
    folders: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in summary.candidates:
        if (row["width_px"] or 0) * (row["height_px"] or 0) <= _MAX_PAIR_PX:
            folders.setdefault((row["style"], row["key"].rpartition("/")[0]), []).append(row)
    waiting = list(folders.values())
    if len(waiting) > num_pairs:
        waiting = [waiting[index * len(waiting) // num_pairs] for index in range(num_pairs)]
    rounds = range(max((len(rows) for rows in waiting), default=0))
    spread = [rows[depth] for depth in rounds for rows in waiting if depth < len(rows)]
    spread.sort(key=lambda row: row["key"] != first_key)
    chosen = sorted(spread[:num_pairs], key=lambda row: (row["style"], row["key"]))
    return sorted(chosen, key=lambda row: row["key"] != first_key)
