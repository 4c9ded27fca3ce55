"""Output for people: the progress line of a running job, and durations and counts as text."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping

from stylemill.errors import StorageError
from stylemill.submission.config import PROGRESS_MARK

LOG_PERIOD_S = 10.0
"""Seconds between two progress lines when stderr is not a terminal."""


class LiveLine:
    """Shows progress on stderr: a line rewritten in place on a terminal, else a plain line every 10 seconds.

    Not rich.live.Live: without a terminal it prints only the last state, and importing it takes 0.2 s.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last_s = 0.0
        self._shown = ""
        self._printed = ""

    def show(self, text: str) -> None:
        """Show the newest state."""
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[2K" + text[:width])
            sys.stderr.flush()
        elif time.monotonic() - self._last_s >= LOG_PERIOD_S:
            self._print(text)
        self._shown = text

    def _print(self, text: str) -> None:
        print(PROGRESS_MARK + text, file=sys.stderr, flush=True)
        self._last_s, self._printed = time.monotonic(), text

    def clear(self) -> None:
        """Erase the line, so that other text can be printed; the next state appears below that text."""
        if self._is_terminal and self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def close(self) -> None:
        """End the line and keep the last state visible."""
        if self._is_terminal and self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()
        elif self._shown != self._printed:
            self._print(self._shown)


def print_report(write: Callable[[], str]) -> None:
    """Write a report and print its location; if it cannot be written, print a note, because the results exist.

    Args:
        write: writes the report and returns its location.
    """
    try:
        uri = write()
    except StorageError as error:
        print(f"note: the report could not be written ({error})")
        return
    print(f"report:   {uri}")


def duration(seconds: float | None) -> str:
    """Return seconds as ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return rows by status as ``120 ok, 3 failed, 2 skipped``."""
    return ", ".join(f"{counts.get(status, 0):,} {status}" for status in ("ok", "failed", "skipped"))
