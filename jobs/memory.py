"""How much memory this process and everything it started use together, sampled while a block runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_PERIOD_S = 1.0


class PeakMemory:
    """Context manager that samples the memory of this process and its descendants, Ray's included.

    Counts proportional set sizes (Linux), so that pages shared between processes count once. Where the
    system does not tell, ``peak_bytes`` stays None.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            used = family_bytes(os.getpid())
            if used is not None:
                self.peak_bytes = max(self.peak_bytes or 0, used)
            if self._stop.wait(_PERIOD_S):
                return


def family_bytes(pid: int) -> int | None:
    """Return the summed proportional set sizes of a process and its descendants, None if unknown."""
    total = None
    for member in family(pid):
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:  # it ended meanwhile, or this is not Linux
            continue
        sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
        if sizes:
            total = (total or 0) + int(sizes[0]) * 1024
    return total


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; the parent's number is the second field after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        member = waiting.pop()
        found.append(member)
        waiting.extend(children.get(member, []))
    return found
