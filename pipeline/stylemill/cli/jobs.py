"""``stylemill jobs list|status|logs|stop --address URL``: watch and stop submitted jobs.

``watch`` also serves ``submit --wait`` and ``submit --follow``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import Subcommand, run_subcommand
from stylemill.cli.terminal import LiveLine, duration
from stylemill.submission.config import PROGRESS_MARK, AddressT, JobConfig, JobsConfig, LogsConfig, with_address_from

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOP_TIMEOUT_S = 90.0
DETACHED = 130
"""Exit code when Ctrl-C ends the watching of a job that continues."""
NUM_LAST_LINES = 5
"""Lines of the log of a failed job that are printed."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_subcommand("jobs", SUBCOMMANDS, arguments)


def list_jobs(config: JobsConfig) -> int:
    """Print one line for each job."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    jobs = cluster.find_jobs(client, config.address)
    shown = list(reversed(jobs if config.all else cluster.our_jobs(jobs)))
    if not shown:
        others = f"; it has {len(jobs)} others, which --all lists" if jobs else ""
        print(f"{config.address} has no jobs of stylemill{others}")
        return 0
    width = max(len(str(job.submission_id)) for job in shown)
    print(f"{'ID':<{width}}  {'STATUS':<9}  {'EXIT':<4}  {'STARTED (UTC)':<16}  {'TOOK':<12}  WHAT")
    for job in shown:
        code = "" if job.driver_exit_code is None else job.driver_exit_code
        print(
            f"{job.submission_id:<{width}}  {str(job.status).lower():<9}  {code:<4}  {_started(job):<16}  "
            f"{_took(job):<12}  {_what(job)}"
        )
    return 0


def status(config: JobConfig) -> int:
    """Print the state and the progress of a job."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    job = cluster.find_job(client, config.address, config.id)
    is_over = job.status.is_terminal()
    print(f"job:      {config.id}")
    print(f"what:     {_what(job)}")
    print(f"status:   {describe_end(job) if is_over else str(job.status).lower()}")
    print(f"started:  {_started(job)} UTC, {'took' if is_over else 'for'} {_took(job)}")
    progress = cluster.newest_progress(client, config.address, config.id)
    if progress is not None:
        print(f"progress: {progress}")
    elif not is_over:
        print(f"progress: none yet ({' '.join((job.message or '').split())})")
    if is_over:
        for line in last_lines(cluster.read_log(client, config.address, config.id)):
            print(f"  {line}")
    return 0


def logs(config: LogsConfig) -> int:
    """Print a job's log."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    cluster.find_job(client, config.address, config.id)
    if config.follow:
        return watch(client, config.address, config.id, follow=True)
    print(cluster.read_log(client, config.address, config.id), end="")
    return 0


def stop(config: JobConfig) -> int:
    """Stop a job and wait until it has ended."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    job = cluster.find_job(client, config.address, config.id)
    if job.status.is_terminal():
        print(f"job {config.id} has already ended: {describe_end(job)}")
        return 0
    with cluster.translated_errors(config.address):
        client.stop_job(config.id)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while not job.status.is_terminal():
        if time.monotonic() > deadline_s:
            check = jobs_command("status", config.id, config.address)
            print(f"job {config.id} was asked to stop and has not ended yet; check with {check}")
            return 1
        time.sleep(0.5)
        job = cluster.find_job(client, config.address, config.id)
    print(f"job {config.id}: {describe_end(job)}")
    return 0


def _connect(config: AddressT) -> tuple[AddressT, JobSubmissionClient]:
    """Return a config whose address is set, and a client for it."""
    from stylemill.submission import cluster

    config = with_address_from(config, dict(os.environ))
    return config, cluster.connect(config.address)


def _started(job: JobDetails) -> str:
    if not job.start_time:
        return "-"
    return datetime.fromtimestamp(job.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _took(job: JobDetails) -> str:
    if not job.start_time:
        return "-"
    return duration((job.end_time or time.time() * 1000) / 1000 - job.start_time / 1000)


def _what(job: JobDetails) -> str:
    from stylemill.submission.cluster import OUT_KEY, VERB_KEY

    metadata = job.metadata or {}
    if VERB_KEY not in metadata:
        return " ".join(job.entrypoint.split())[:80]
    return f"{metadata[VERB_KEY]} -> {metadata.get(OUT_KEY, '?')}"


def jobs_command(subcommand: str, job: str, address: str) -> str:
    """Return the command line of a subcommand of ``jobs`` for one job."""
    return f"stylemill jobs {subcommand} {job} --address {address}"


def watch(client: JobSubmissionClient, address: str, job: str, *, follow: bool) -> int:
    """Wait for the end of a job and return its exit code; Ctrl-C ends only the watching.

    Args:
        client: of the cluster.
        address: of the cluster, for messages.
        job: id of the job.
        follow: print the log as it grows, else show status and progress.
    """
    from stylemill.submission import cluster

    view = _LogView() if follow else _StatusView()
    try:
        if isinstance(view, _LogView):
            ended = cluster.follow_log(client, address, job, view.show)
        else:
            ended = cluster.wait_for_end(client, address, job, view.show)
    except KeyboardInterrupt:
        view.close()
        print(f"\ndetached; job {job} continues\n  {jobs_command('logs', job, address)} --follow")
        print(f"  {jobs_command('stop', job, address)}")
        return DETACHED
    view.close()
    code = cluster.job_exit_code(ended)
    print(f"job {job}: {describe_end(ended)}")
    if code and not follow:
        for line in last_lines(cluster.read_log(client, address, job)):
            print(f"  {line}")
    return code


def describe_end(job: JobDetails) -> str:
    """Return how a job ended, as text."""
    status = str(job.status).lower()
    if job.driver_exit_code == 3:
        return "done, but too many sources failed (exit code 3)"
    if job.driver_exit_code:
        return f"{status} with exit code {job.driver_exit_code}"
    if status == "failed":
        reason = " ".join((job.message or "no reason given").split())[:300]
        return f"failed ({reason}); the same submit command resumes"
    return f"{status}; the same submit command resumes" if status == "stopped" else status


def last_lines(log: str) -> list[str]:
    """Return the last lines of a log that are neither blank nor progress."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(PROGRESS_MARK)]
    return lines[-NUM_LAST_LINES:]


class _LogView:
    """Prints a job's log; its progress lines become one live line."""

    def __init__(self) -> None:
        self._line = LiveLine()
        self._unfinished = ""

    def show(self, text: str) -> None:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            if line.startswith(PROGRESS_MARK):
                self._line.show(line.removeprefix(PROGRESS_MARK))
            else:
                self._line.clear()
                print(line, flush=True)

    def close(self) -> None:
        if self._unfinished:
            print(self._unfinished)
        self._line.close()


class _StatusView:
    """Shows a job's status and progress in one live line."""

    def __init__(self) -> None:
        self._line = LiveLine()

    def show(self, job: JobDetails, progress: str | None) -> None:
        if not job.status.is_terminal():
            self._line.show(f"{str(job.status).lower()}: {progress or 'no progress yet'}")

    def close(self) -> None:
        self._line.close()


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "list": Subcommand(does="list the jobs of the cluster, newest first", config=JobsConfig, run=list_jobs),
    "status": Subcommand(
        does="show the state and the progress of a job", config=JobConfig, run=status, positional="id"
    ),
    "logs": Subcommand(
        does="print a job's log; --follow continues to its end and exits with its exit code",
        config=LogsConfig,
        run=logs,
        positional="id",
    ),
    "stop": Subcommand(
        does="stop a job, which can be resumed by submitting it again", config=JobConfig, run=stop, positional="id"
    ),
}
