"""Finding the processes of a job, and waiting for what they do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stylemill.process import process_tree

FoundT = TypeVar("FoundT")

PATIENCE_S = 420.0
"""Not a measurement: how long a test waits for something that must come before it gives up."""


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return pid and command of every living process below one."""
    found = []
    for process in process_tree(pid)[1:]:
        try:
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        found.append((process.pid, command.replace(b"\0", b" ").decode(errors="replace")))
    return found


def workers(pid: int, actor: str) -> list[int]:
    """Return the living Ray workers below a process whose title names this class."""
    return [child for child, title in descendants(pid) if title.startswith("ray::") and actor in title]


def wait_for(what: str, job: subprocess.Popen[str], look: Callable[[], FoundT]) -> FoundT:
    """Return what ``look`` finds as soon as it finds something; fail if the job ends before."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        found = look()
        if found:
            return found
        assert job.poll() is None, f"the job ended with {job.returncode} before {what}: {job.communicate()[0]}"
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")
