"""``stylemill jobs list|status|logs|stop --address URL``: look after what was submitted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import Subcommand, run_subcommand
from stylemill.cli.submit import come_back, ending, last_words, look_after
from stylemill.cli.terminal import duration
from stylemill.submission.config import AddressT, JobConfig, JobsConfig, LogsConfig, with_address_from

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOP_PATIENCE_S = 90.0


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand."""
    return run_subcommand("jobs", SUBCOMMANDS, arguments)


def list_jobs(config: JobsConfig) -> int:
    """Print one line for each job."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    jobs = cluster.find_jobs(client, config.address)
    shown = list(reversed(jobs if config.all else cluster.our_jobs(jobs)))
    if not shown:
        print(f"{config.address} knows no jobs of stylemill's" + (f", and {len(jobs)} others (--all)" if jobs else ""))
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
    """Print what is known about a job."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    job = cluster.find_job(client, config.address, config.id)
    is_over = job.status.is_terminal()
    print(f"job:      {config.id}")
    print(f"what:     {_what(job)}")
    print(f"status:   {ending(job) if is_over else str(job.status).lower()}")
    print(f"started:  {_started(job)} UTC, {'took' if is_over else 'for'} {_took(job)}")
    progress = cluster.newest_progress(client, config.address, config.id)
    if progress is not None:
        print(f"progress: {progress}")
    elif not is_over:
        print(f"progress: none yet ({' '.join((job.message or '').split())})")
    if is_over:
        for line in last_words(cluster.read_log(client, config.address, config.id)):
            print(f"  {line}")
    return 0


def logs(config: LogsConfig) -> int:
    """Print a job's log."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    cluster.find_job(client, config.address, config.id)
    if config.follow:
        return look_after(client, config.address, config.id, follow=True)
    print(cluster.read_log(client, config.address, config.id), end="")
    return 0


def stop(config: JobConfig) -> int:
    """Stop a job and wait until it is gone."""
    from stylemill.submission import cluster

    config, client = _connect(config)
    job = cluster.find_job(client, config.address, config.id)
    if job.status.is_terminal():
        print(f"job {config.id} has ended before: {ending(job)}")
        return 0
    with cluster.talking_to(config.address):
        client.stop_job(config.id)
    deadline_s = time.monotonic() + STOP_PATIENCE_S
    while not job.status.is_terminal():
        if time.monotonic() > deadline_s:
            look = come_back("status", config.id, config.address)
            print(f"job {config.id} was told to stop but has not yet; see {look}")
            return 1
        time.sleep(0.5)
        job = cluster.find_job(client, config.address, config.id)
    print(f"job {config.id}: {ending(job)}")
    return 0


def _connect(config: AddressT) -> tuple[AddressT, JobSubmissionClient]:
    """Return a config whose address is known, and a client for it."""
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


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "list": Subcommand(does="list the jobs that the cluster knows, newest first", config=JobsConfig, run=list_jobs),
    "status": Subcommand(does="show how far a job is", config=JobConfig, run=status, positional="id"),
    "logs": Subcommand(
        does="print a job's log; --follow goes on to its end and leaves with its exit code",
        config=LogsConfig,
        run=logs,
        positional="id",
    ),
    "stop": Subcommand(
        does="stop a job, which can be resumed by submitting it again", config=JobConfig, run=stop, positional="id"
    ),
}
