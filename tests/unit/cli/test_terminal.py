"""Progress lines and durations."""

from __future__ import annotations

import pytest

from stylemill.cli import terminal
from stylemill.cli.terminal import LiveLine, counts_text, duration


def test_off_a_terminal_a_plain_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now_s = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now_s[0])
    line = LiveLine()
    for step in range(25):
        line.show(f"step {step}")
        now_s[0] += 1.0
    line.close()
    assert capsys.readouterr().err == "progress: step 0\nprogress: step 10\nprogress: step 20\nprogress: step 24\n"


def test_on_a_terminal_one_line_is_rewritten(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    line = LiveLine()
    line.show("step 1")
    line.show("step 2")
    line.close()
    assert capsys.readouterr().err == "\r\x1b[2Kstep 1\r\x1b[2Kstep 2\n"


def test_durations_and_counts():
    assert [duration(seconds) for seconds in (None, 0.4, 59.4, 185, 7800)] == [
        *("?", "0 s", "59 s", "3 min 05 s", "2 h 10 min"),
    ]
    assert counts_text({"ok": 1200, "skipped": 2}) == "1,200 ok, 0 failed, 2 skipped"
