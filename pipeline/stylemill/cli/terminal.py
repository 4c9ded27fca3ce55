"""What a person sees while a job runs: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping

from stylemill.errors import StorageError
from stylemill.submission.config import PROGRESS_MARK

QUIET_PERIOD_S = 10.0


class LiveLine:
    """One line that is rewritten in place on a terminal, and printed every 10 seconds off one."""

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
        elif time.monotonic() - self._last_s >= QUIET_PERIOD_S:
            self._print(text)
        self._shown = text

    def _print(self, text: str) -> None:
        print(PROGRESS_MARK + text, file=sys.stderr, flush=True)
        self._last_s, self._printed = time.monotonic(), text

    def clear(self) -> None:
        """Make room for a line that stays; the next state appears below it."""
        if self._is_terminal and self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the last state standing."""
        if self._is_terminal and self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()
        elif self._shown != self._printed:
            self._print(self._shown)


def print_report(write: Callable[[], str]) -> None:
    """Write a report and print where it is; one that cannot be written is a note, since what it tells of is there.

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
    """Return seconds as a person says them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
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
