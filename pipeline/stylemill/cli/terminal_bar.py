"""The progress bar on a terminal: one line on stderr that never wraps. The only module that imports rich."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from stylemill.cli.terminal import Steps

LEAST_BAR, WIDEST_BAR = 10, 30
"""Columns of the bar; what a narrow terminal lacks is taken from it first, then from the end of the text."""


class TerminalBar:
    """A bar with figures, or a spinner with text; redrawn ten times a second so that a waiting job looks alive."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._spinner = Spinner("dots")
        self._lock = threading.Lock()
        self._text, self._steps = "", None  # type: tuple[str, Steps | None]
        # Text for stdout must not pass through the bar, which writes to stderr; log messages must.
        self._live = self._new_live()

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            get_renderable=self._line,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        )

    def show(self, text: str, steps: Steps | None) -> None:
        """Show a state, below everything that was printed before."""
        with self._lock:
            self._text, self._steps = text, steps
        if not self._live.is_started:
            self._live.start(refresh=True)

    def clear(self) -> None:
        """Erase the line until the next state is shown."""
        if self._live.is_started:
            self._live.stop()
            self._live = self._new_live()  # a stopped one does not know that the cursor has moved

    def close(self, text: str) -> None:
        """Erase the line and print the last state in its place."""
        self.clear()
        if text:
            self._console.print(Text(text), no_wrap=True, overflow="ellipsis")

    def _line(self) -> Table:
        with self._lock:
            text, steps = self._text, self._steps
        shown = Text(text if steps is None else str(steps))
        line = Table.grid(Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis"), padding=(0, 1))
        if steps is None:
            line.add_row(self._spinner, shown)
            return line
        width = max(LEAST_BAR, min(WIDEST_BAR, self._console.width - shown.cell_len - 2))
        line.add_row(ProgressBar(total=max(1, steps.total), completed=steps.done, width=width), shown)
        return line
