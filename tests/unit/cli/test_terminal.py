"""Progress bars and lines, and durations; bars are drawn on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

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


ON_A_TERMINAL = """
import sys
from stylemill.cli.terminal import LiveLine, Steps
line = LiveLine()
line.show("starting")
for done in (0, 500_000, 1_000_000):
    steps = Steps(done=done, total=1_000_000, unit="images", per_s=12.3, failed=7, seconds_left=3900.0)
    line.show("the whole state, which is longer than sixty columns: " + str(done), steps)
    line.clear()
    print("printed", done, flush=True)
line.show("last " * 30)
line.close()
"""


def test_on_a_terminal_a_bar_is_redrawn_and_never_wraps():
    shown, screen = on_terminal(ON_A_TERMINAL, columns=60)
    assert "━" in shown and "500,000/1,000,000 images · 7 failed" in shown and "progress:" not in shown
    assert screen[:3] == ["printed 0", "printed 500000", "printed 1000000"]  # the bar is gone from between them
    assert screen[3].startswith("last last") and screen[3].endswith("…") and len(screen) == 4
    states = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", state) for state in re.split(r"[\r\n]+", shown)]
    assert max(map(len, states)) <= 60
    wide, _ = on_terminal(ON_A_TERMINAL, columns=120)
    assert "1,000,000/1,000,000 images · 7 failed · 1 h 05 min left · 12.30 images/s" in wide


def test_a_terminal_without_cursor_control_gets_plain_lines():
    shown, screen = on_terminal(ON_A_TERMINAL, columns=60, TERM="dumb")
    assert "\x1b" not in shown and screen[0] == "progress: starting"


def test_rich_is_imported_for_a_terminal_alone():
    code = "import sys; from stylemill.cli.terminal import LiveLine; LiveLine(); print('rich' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
    assert on_terminal(code, columns=60)[1] == ["True"]


def on_terminal(code: str, columns: int, **variables: str) -> tuple[str, list[str]]:
    """Run code on a pseudo-terminal; return all that it wrote, and the lines that are on the screen at the end."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"} | variables
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    written = b""
    with contextlib.suppress(OSError):  # how a pseudo-terminal ends
        while chunk := os.read(reader, 65536):
            written += chunk
    os.close(reader)
    assert process.wait() == 0, written
    return written.decode(), _screen(written.decode())


def _screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after these characters, which use only what rich uses for one line."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\x1b[1A":
            row -= 1
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b") and token != "\r":
            lines[row] += token
    return [line for line in lines if line]


def test_durations_and_counts():
    assert [duration(seconds) for seconds in (None, 0.4, 59.4, 185, 7800)] == [
        *("?", "0 s", "59 s", "3 min 05 s", "2 h 10 min"),
    ]
    assert counts_text({"ok": 1200, "skipped": 2}) == "1,200 ok, 0 failed, 2 skipped"
