"""Folders on this machine's disk that do not outlive their process, however it ends."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
