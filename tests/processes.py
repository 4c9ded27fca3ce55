"""Processes of tests: starting stylemill and helper programs, finding what runs below them, waiting, killing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from stylemill.process import process_tree

ROOT = Path(__file__).parents[1]

PATIENCE_S = 420.0
"""How long a test waits for something that must happen before it fails; not a measurement."""

FoundT = TypeVar("FoundT")
Job = subprocess.Popen[str]


def command_line(*arguments: object) -> list[str]:
    """Return the words of one call of ``stylemill`` with this environment's Python."""
    return [sys.executable, "-m", "stylemill", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment for a child that may import ``tests``, with some variables more."""
    return {"RAY_AUTH_MODE": "disabled", **os.environ, "PYTHONPATH": str(ROOT), **more}


def start_stylemill(
    *arguments: object,
    module: str = "stylemill",
    cwd: Path | None = None,
    stderr: int | IO[str] = subprocess.STDOUT,
    **variables: str,
) -> Job:
    """Start ``stylemill``, or a module around it, in its own process group; ``communicate`` reads its output."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=cwd,
        env=environment(**variables),
        start_new_session=True,
    )


class Helper:
    """A module of ``tests`` that runs as a process and takes orders, one per line, each answered by a line.

    Its first line is available as ``greeting``. It ends when its standard input ends.
    """

    def __init__(self, module: str, *arguments: object, **variables: str) -> None:
        self.process: Job = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(**variables),
            start_new_session=True,
        )
        self.greeting = self.answer()

    def order(self, *words: object) -> str:
        """Give an order and return the answer."""
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        """Give an order that has no answer."""
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def answer(self) -> str:
        """Return the next line of output, which may have to be waited for."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def finish(job: Job, code: int = 0) -> str:
    """Wait for the end of a job, check its exit code and that no traceback was printed; return its output."""
    output, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == code, output
    assert "Traceback" not in output, output
    return output


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


def wait_for(what: str, job: subprocess.Popen[str] | None, look: Callable[[], FoundT], pause_s: float = 0.05) -> FoundT:
    """Return what ``look`` finds as soon as it finds something; fail if the job ends before that."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        found = look()
        if found:
            return found
        if job is not None:
            assert job.poll() is None, f"the job ended with {job.returncode} before {what}: {job.communicate()[0]}"
        time.sleep(pause_s)
    raise AssertionError(f"waited in vain for {what}")


def kill_group(job: Job) -> None:
    """SIGKILL a job and every process of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def kill_everything(job: Job) -> None:
    """SIGKILL a job with its cluster and its workers, which Ray starts in process groups of their own."""
    below = [pid for pid, _ in descendants(job.pid)]
    kill_group(job)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job.communicate()
