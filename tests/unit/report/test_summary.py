from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from stylemill.manifest.schema import MANIFEST_SCHEMA
from stylemill.report.summary import Durations, choose_candidates, summarize

START = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def _at(seconds):
    return {"finished_at": START + dt.timedelta(seconds=seconds)}


def _bad(status, error_type, key="bad"):
    return {"status": status, "error_type": error_type, "error": "because", "key": key}


def test_counts_and_sums(manifest_rows):
    summary = summarize(manifest_rows({}, {}, _bad("failed", "Truncated"), _bad("skipped", "NotAnImage"), {}))
    assert summary.num_rows == 5
    assert summary.statuses == {"ok": 3, "failed": 1, "skipped": 1}
    assert summary.errors == {("failed", "Truncated"): 1, ("skipped", "NotAnImage"): 1}
    assert (summary.source_bytes, summary.output_bytes, summary.output_px) == (3000, 9000, 60_000)
    assert summary.stages["stylize_ms"].total_ms == pytest.approx(90.0)
    assert [trouble.status for trouble in summary.troubles] == ["failed", "skipped"]


def test_parts_give_what_the_whole_gives(manifest_rows):
    rows = [_bad("failed", "Truncated", f"k{n}") if n % 5 == 0 else {} for n in range(40)]
    table = manifest_rows(*rows)
    whole = summarize(table)
    parts = summarize(iter([table.slice(0, 7), table.slice(7, 20), table.slice(27)]))
    for name in ("num_rows", "statuses", "errors", "troubles", "candidates", "finished_by_second"):
        assert getattr(whole, name) == getattr(parts, name), name
    assert whole.active_s == parts.active_s


def test_an_empty_manifest_is_no_error():
    summary = summarize(MANIFEST_SCHEMA.empty_table())
    assert summary.num_rows == 0
    assert summary.images_per_s is None
    assert summary.pace() == ([], [])
    assert choose_candidates(summary, 12) == []


def test_pace_is_rows_after_the_first_over_the_time_between(manifest_rows):
    summary = summarize(manifest_rows(*(_at(0.25 * n) for n in range(41))))
    assert summary.active_s == pytest.approx(10.0)
    assert summary.images_per_s == pytest.approx(4.0)


def test_the_pause_of_a_resumed_run_does_not_count(manifest_rows):
    before = [_at(n) for n in range(11)]
    after = [_at(10 + 86_400 + n) for n in range(11)]
    summary = summarize(manifest_rows(*before, *after))
    assert summary.active_s == pytest.approx(20.0)


def test_quantiles_are_right_within_two_percent():
    values = np.random.default_rng(0).lognormal(3.0, 1.5, size=20_000)
    durations = Durations()
    for chunk in np.array_split(values, 7):
        durations.add(chunk)
    for fraction in (0.05, 0.5, 0.95):
        assert durations.quantile(fraction) == pytest.approx(np.quantile(values, fraction), rel=0.025)
    assert durations.total_ms == pytest.approx(values.sum())


def test_no_times_no_quantile():
    durations = Durations()
    durations.add(np.array([np.nan, -1.0]))
    assert durations.quantile(0.5) is None


def test_failures_come_before_skips_and_lists_are_bounded(manifest_rows):
    rows = [_bad("skipped", "NotAnImage", f"s{n}") for n in range(250)]
    rows += [_bad("failed", "Corrupt", f"f{n}") for n in range(3)]
    summary = summarize(manifest_rows(*rows))
    assert summary.num_troubles == 253
    assert len(summary.troubles) == 200
    assert [trouble.key for trouble in summary.troubles[:3]] == ["f0", "f1", "f2"]


def test_candidates_of_a_large_run_are_few_and_spread(manifest_rows):
    table = manifest_rows(*({"key": f"{n:05d}.jpg"} for n in range(5000)))
    summary = summarize(table.slice(start, 500) for start in range(0, 5000, 500))
    keys = [int(row["key"][:5]) for row in summary.candidates]
    assert 50 <= len(keys) <= 400
    assert min(keys) < 500
    assert max(keys) > 4400


def test_pairs_are_spread_over_folders(manifest_rows):
    rows = [{"key": f"a/{n:02d}.jpg"} for n in range(30)] + [{"key": f"b/{n}.jpg"} for n in range(2)]
    rows += [{"key": "c/huge.jpg", "width_px": 30_000, "height_px": 30_000}]
    summary = summarize(manifest_rows(*rows))
    chosen = [row["key"] for row in choose_candidates(summary, 6)]
    assert chosen == ["a/00.jpg", "a/01.jpg", "a/02.jpg", "a/03.jpg", "b/0.jpg", "b/1.jpg"]
    first = [row["key"] for row in choose_candidates(summary, 3, first_key="a/29.jpg")]
    assert first[0] == "a/29.jpg"
    assert len(first) == 3
