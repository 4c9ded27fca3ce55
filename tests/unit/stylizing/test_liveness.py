"""The tracker, the workers' reports to it, and the metrics: all in this process, without Ray."""

from __future__ import annotations

from typing import Any

import pytest
import ray.util.metrics

from stylemill.errors import ImageError
from stylemill.storage.retry import TransientError, num_retries, with_retries
from stylemill.stylizing import liveness
from stylemill.stylizing.identity import StyleRef
from stylemill.stylizing.liveness import Progress, RunTracker, WorkerMeters, WorkerReports
from stylemill.stylizing.sample import Sample, failure_columns, manifest_row

STYLE = StyleRef(name="waves", version="1", model_sha256="ab", fingerprint="f")
PLANNED = {"uri": "/in/a", "key": "a", "size_bytes": 70, "etag": "e", "attempt": 1}


def test_the_tracker_counts_and_remembers_what_was_in_flight():
    tracker = RunTracker()
    assert tracker.progress()[:2] == (0, {})
    for key in ("a", "b", "b", "c"):
        tracker.begin(key)
    tracker.finish([("a", ["ok", "failed"])])
    assert tracker.unfinished(["a", "b", "c", "d"]) == {"b": 2, "c": 1}
    tracker.begin("d", finished=[("b", ["ok", "ok"])])
    assert tracker.unfinished(["b"]) == {}
    assert tracker.progress()[:2] == (2, {"ok": 3, "failed": 1})
    tracker.painted(["c", "never begun"])
    assert tracker.unfinished(["a", "b", "c", "d"]) == {"d": 1}
    tracker.finish([("c", ["ok"])])
    assert tracker.progress()[:2] == (3, {"ok": 4, "failed": 1})


def test_the_tracker_knows_a_block_in_which_a_worker_died():
    tracker = RunTracker()
    assert [tracker.start_block(key) for key in ("a", "b", "a")] == [False, False, True]
    tracker.end_block("a")
    assert [tracker.start_block(key) for key in ("a", "b")] == [False, True]


def test_the_tracker_remembers_which_sources_were_stuck():
    tracker = RunTracker()
    tracker.stuck("b", 30.0)
    assert tracker.limits_of_stuck(["a", "b"]) == {"b": 30.0}


def test_progress_has_no_estimate_before_the_first_image():
    assert Progress(num_sources=10, num_resumed=0).seconds_left is None
    half = Progress(num_sources=10, num_resumed=2, num_finished=4, busy_s=8.0)
    assert (half.images_per_s, half.seconds_left) == (0.5, 8.0)


class _CountedTracker:
    """Hands calls to a RunTracker and counts them, as each is a message."""

    def __init__(self):
        self.tracker = RunTracker()
        self.num_calls = 0

    def begin(self, key, finished):
        self.num_calls += 1
        self.tracker.begin(key, finished)

    def finish(self, finished):
        self.num_calls += 1
        self.tracker.finish(finished)


def test_finished_sources_are_reported_with_the_next_start(monkeypatch):
    monkeypatch.setattr(liveness, "MAX_REPORT_DELAY_S", 3600.0)
    counted = _CountedTracker()
    reports = WorkerReports(counted)
    for key in ("a", "b", "c"):
        reports.begin(key)
        reports.finish(key, ["ok"])
    assert counted.num_calls == 3
    assert counted.tracker.unfinished(["a", "b", "c"]) == {"c": 1}
    reports.flush()
    reports.flush()
    assert counted.num_calls == 4
    assert counted.tracker.unfinished(["a", "b", "c"]) == {}
    assert counted.tracker.progress()[:2] == (3, {"ok": 3})


def test_after_the_delay_a_finish_is_reported_at_once(monkeypatch):
    monkeypatch.setattr(liveness, "MAX_REPORT_DELAY_S", -1.0)
    counted = _CountedTracker()
    reports = WorkerReports(counted)
    reports.begin("a")
    reports.finish("a", ["failed"])
    assert counted.tracker.unfinished(["a"]) == {}
    assert counted.tracker.progress()[:2] == (1, {"failed": 1})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What reaches Ray's metrics: name, value, tags. Ray itself, which would export them, does not run here."""
    seen: list[tuple[str, float, dict[str, str]]] = []

    def spy(kind: type, method: str) -> None:
        original: Any = getattr(kind, method)

        def record(self: Any, value: float = 1.0, tags: Any = None) -> None:
            seen.append((self.info["name"], value, dict(tags or {})))
            original(self, value, tags)

        monkeypatch.setattr(kind, method, record)

    spy(ray.util.metrics.Counter, "inc")
    spy(ray.util.metrics.Histogram, "observe")
    return seen


def test_a_painted_row(counted: list):
    done = {"status": "ok", "output_bytes": 90, "stylize_ms": 160.0, "encode_ms": 4.0}
    row = manifest_row(Sample(planned=PLANNED, source_bytes=70, decode_ms=10.0), STYLE, "r1", **done)
    WorkerMeters(ray.util.metrics, "r1").count([row])
    assert ("stylemill_images", 1, {"status": "ok"}) in counted
    assert ("stylemill_bytes", 90, {"direction": "written"}) in counted
    assert ("stylemill_bytes", 70, {"direction": "read"}) in counted
    seconds = {tags["stage"]: value for name, value, tags in counted if name == "stylemill_stage_seconds"}
    assert seconds == {"decode": 0.01, "stylize": 0.16, "encode": 0.004}


def test_a_failed_row_lacks_what_was_never_made(counted: list):
    failure = ImageError("Truncated", "it ends too soon")
    row = manifest_row(Sample(planned=PLANNED), STYLE, "r1", **failure_columns(failure))
    assert "output_bytes" not in row
    WorkerMeters(ray.util.metrics, "r1").count([row])
    assert ("stylemill_images", 1, {"status": "failed"}) in counted
    assert "written" not in str(counted) and "stylize" not in str([tags for _, _, tags in counted])


def test_retries_are_counted_once(counted: list):
    meters, before, outcomes = (
        WorkerMeters(ray.util.metrics, "r1"),
        num_retries(),
        [TransientError("reset"), TransientError("reset"), 7],
    )

    def operation() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, TransientError):
            raise outcome
        return outcome

    assert with_retries(operation, what="reading", deadline_s=30) == 7
    assert num_retries() == before + 2
    meters.count_retries()
    meters.count_retries()
    assert [entry for entry in counted if entry[0] == "stylemill_storage_retries"] == [
        ("stylemill_storage_retries", 2, {})
    ]
