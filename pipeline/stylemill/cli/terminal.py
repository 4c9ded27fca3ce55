"""Output for people: the progress of a running job, and durations and counts as text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from stylemill.cli.output import current, result
from stylemill.errors import StorageError
from stylemill.submission.config import PROGRESS_MARK

if TYPE_CHECKING:
    from stylemill.cli.terminal_bar import TerminalBar

LOG_PERIOD_S = 10.0
"""Seconds between two progress lines when stderr is not a terminal."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How far a job is, for a bar and for progress events."""

    done: int
    total: int
    unit: str
    """What is counted: ``images``."""
    per_s: float | None = None
    """Images per second."""
    failed: int | None = None
    seconds_left: float | None = None
    note: str = ""
    """One more figure, such as the loss."""

    def __str__(self) -> str:
        parts = [f"{self.done:,}/{self.total:,} {self.unit}"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        if self.note:
            parts.append(self.note)
        if self.per_s:
            parts.append(f"{self.per_s:.2f} images/s")
        return " · ".join(parts)


class LiveLine:
    """Shows progress on stderr: a bar on a terminal, else a plain line every 10 seconds.

    Without a total the bar is a spinner. --quiet hides it, and with --json-lines it becomes events on stdout. rich,
    which takes a moment to import, is imported for a terminal alone.
    """

    def __init__(self) -> None:
        self._output = current()
        hides = self._output.options.is_quiet or self._output.options.form == "json-lines"
        self._bar: TerminalBar | None = None
        self._is_hidden = hides
        if not hides and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from stylemill.cli.terminal_bar import TerminalBar

            self._bar = TerminalBar()
        self._last_s = 0.0
        self._shown = ""
        self._printed = ""

    def show(self, text: str, steps: Steps | None = None) -> None:
        """Show the newest state.

        Args:
            text: the state as one line.
            steps: the same as figures, if the job has a known total.
        """
        self._output.event("progress", text=text, **({} if steps is None else asdict(steps)))
        if self._is_hidden:
            return
        if self._bar is not None:
            self._bar.show(text, steps)
        elif time.monotonic() - self._last_s >= LOG_PERIOD_S:
            self._print(text)
        self._shown = text

    def _print(self, text: str) -> None:
        print(PROGRESS_MARK + text, file=sys.stderr, flush=True)
        self._last_s, self._printed = time.monotonic(), text

    def clear(self) -> None:
        """Erase the line, so that other text can be printed; the next state appears below that text."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """End the line and keep the last state visible."""
        if self._bar is not None:
            self._bar.close(self._shown)
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
    result(paths={"report": uri})
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


def by_status(counts: Mapping[str, int]) -> dict[str, int]:
    """Return rows by status with zeros: a script can rely on all three."""
    return {status: counts.get(status, 0) for status in ("ok", "failed", "skipped")}


def counts_text(counts: Mapping[str, int]) -> str:
    """Return rows by status as ``120 ok, 3 failed, 2 skipped``."""
    return ", ".join(f"{count:,} {status}" for status, count in by_status(counts).items())


def size_text(num_bytes: int) -> str:
    """Return a size as ``1.2 TB``."""
    value, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} {units[0]}" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"
