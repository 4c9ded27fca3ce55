"""What every long-running process needs: scratch folders, periodic calls, and how much memory is used."""

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
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

MEMORY_SAMPLE_PERIOD_S = 1.0
"""Pause between two samples of ``PeakMemory``."""

_LOCK_NAME = "in-use"


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Yield an empty temporary folder and remove it after the block.

    A killed process cannot remove its folder, so each call first removes the folders of dead processes. The owner
    holds a file lock inside its folder; the kernel releases the lock when the process ends.

    Args:
        prefix: of the folder's name; only folders with this prefix are removed.
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
            if _can_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # being created, being removed, or owned by another user


def _can_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def periodically(action: Callable[[], None], period_s: float) -> Iterator[None]:
    """Call ``action`` from a background thread while the block runs, and once from this thread after the block.

    If the block raises, the call after it is left out.

    Args:
        action: never called twice at the same time.
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


@contextmanager
def attributes(target: object, **values: object) -> Iterator[None]:
    """Set attributes of an object that others share, and restore them after the block."""
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


class PeakMemory:
    """Context manager that samples the memory of this process and its descendants, Ray's included.

    Attributes:
        peak_bytes: the largest sample of ``process_tree_bytes``; None where the system does not report it.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            used = process_tree_bytes(os.getpid())
            if used is not None:
                self.peak_bytes = max(self.peak_bytes or 0, used)
            if self._stop.wait(MEMORY_SAMPLE_PERIOD_S):
                return


def process_tree_bytes(pid: int) -> int | None:
    """Return the summed proportional set sizes (PSS) of a process and its descendants.

    PSS divides each shared page among the processes that share it, so the sum counts the page once. Only Linux
    reports it.

    Returns:
        Bytes; None if the process is gone or the system does not report PSS.
    """
    sizes = []
    for process in process_tree(pid):
        try:
            sizes.append(getattr(process.memory_full_info(), "pss", None))
        except (psutil.Error, OSError):  # it ended meanwhile, or belongs to somebody else
            continue
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; empty if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def peak_memory_bytes(device: torch.device) -> int:
    """Return this process's peak resident memory, or the device's peak allocation on a GPU, in bytes."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
