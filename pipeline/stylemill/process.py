"""Folders on this machine's disk that do not outlive their process, however it ends.

Doing something again and again beside the main work.

How much memory this process and everything it started use together, sampled while a block runs.

How much memory this process has used at most.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

import torch

_LOCK_NAME = "in-use"


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Yield an empty folder and remove it after the block.

    A process that is killed cannot remove its own; the next one on this machine does. Locks tell the dead from the
    living: the kernel drops them with their process.

    Args:
        prefix: of the folder's name; only folders of the same prefix are looked at.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_if_dead(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with (folder / _LOCK_NAME).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    try:
        with (folder / _LOCK_NAME).open("r+b") as lock:
            if _may_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # being made, being removed, or another user's


def _may_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def periodically(action: Callable[[], None], period_s: float) -> Iterator[None]:
    """Call ``action`` from a thread of its own while the body runs, and once more, from here, after it.

    Args:
        action: never runs twice at the same time.
        period_s: pause between the calls.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(period_s):
            action()

    thread = threading.Thread(target=repeat, name="periodically", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    action()


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


def peak_memory_bytes(device: torch.device) -> int:
    """Return the process's peak resident memory, or the device's peak allocation on a GPU, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
