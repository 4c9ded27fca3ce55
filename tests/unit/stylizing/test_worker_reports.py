"""A worker's reports: few calls, nothing lost, no start told too late."""

from __future__ import annotations

from types import SimpleNamespace

from stylemill.stylizing import liveness as worker_reports
from stylemill.stylizing.liveness import RunTracker, WorkerReports


class _LocalTracker:
    """A RunTracker in this process, called as Ray's handle is."""

    def __init__(self) -> None:
        self.tracker = RunTracker()
        self.num_calls = 0
        self.begin = SimpleNamespace(remote=self._counted(self.tracker.begin))
        self.finish = SimpleNamespace(remote=self._counted(self.tracker.finish))

    def _counted(self, method):
        def call(*arguments):
            self.num_calls += 1
            method(*arguments)

        return call


def test_finished_sources_travel_with_the_next_start(monkeypatch):
    monkeypatch.setattr(worker_reports, "LONGEST_SILENCE_S", 3600.0)
    local = _LocalTracker()
    reports = WorkerReports(local)
    for key in ("a", "b", "c"):
        reports.begin(key)
        reports.finish(key, ["ok"])
    assert local.num_calls == 3
    assert local.tracker.unfinished(["a", "b", "c"]) == {"c": 1}
    reports.flush()
    reports.flush()
    assert local.num_calls == 4
    assert local.tracker.unfinished(["a", "b", "c"]) == {}
    assert local.tracker.progress()[:2] == (3, {"ok": 3})


def test_after_a_silence_a_finish_is_told_at_once(monkeypatch):
    monkeypatch.setattr(worker_reports, "LONGEST_SILENCE_S", -1.0)
    local = _LocalTracker()
    reports = WorkerReports(local)
    reports.begin("a")
    reports.finish("a", ["failed"])
    assert local.tracker.unfinished(["a"]) == {}
    assert local.tracker.progress()[:2] == (1, {"failed": 1})
