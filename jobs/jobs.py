"""``stylemill jobs list|status|logs|stop --address URL``: look after what was submitted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs.arguments import parse, subcommand
from jobs.submit import come_back, ending, last_words, look_after
from jobs.terminal import duration
from pipeline.submission.config import JobConfig, JobsConfig, LogsConfig, with_address_from

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

SUBCOMMANDS = {
    "list": "list the jobs that the cluster knows, newest first",
    "status": "show how far a job is",
    "logs": "print a job's log; --follow goes on to its end and leaves with its exit code",
    "stop": "stop a job, which can be resumed by submitting it again",
}
STOP_PATIENCE_S = 90.0


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand."""
    chosen = subcommand("jobs", SUBCOMMANDS, arguments)
    if chosen is None:
        return 0
    name, rest = chosen
    return _HANDLERS[name](rest)


def list_jobs(arguments: Sequence[str]) -> int:
    """Print one line for each job."""
    config = parse(JobsConfig, "jobs list", SUBCOMMANDS["list"], arguments)
    if config is None:
        return 0
    config = with_address_from(config, dict(os.environ))
    from pipeline.submission import cluster

    client = cluster.connect(config.address)
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


def status(arguments: Sequence[str]) -> int:
    """Print what is known about a job."""
    config = parse(JobConfig, "jobs status", SUBCOMMANDS["status"], arguments, positional="id")
    if config is None:
        return 0
    config = with_address_from(config, dict(os.environ))
    from pipeline.submission import cluster, watch

    client = cluster.connect(config.address)
    job = cluster.find_job(client, config.address, config.id)
    is_over = job.status.is_terminal()
    print(f"job:      {config.id}")
    print(f"what:     {_what(job)}")
    print(f"status:   {ending(job) if is_over else str(job.status).lower()}")
    print(f"started:  {_started(job)} UTC, {'took' if is_over else 'for'} {_took(job)}")
    progress = watch.newest_progress(client, config.address, config.id)
    if progress is not None:
        print(f"progress: {progress}")
    elif not is_over:
        print(f"progress: none yet ({' '.join((job.message or '').split())})")
    if is_over:
        for line in last_words(watch.read_log(client, config.address, config.id)):
            print(f"  {line}")
    return 0


def logs(arguments: Sequence[str]) -> int:
    """Print a job's log."""
    config = parse(LogsConfig, "jobs logs", SUBCOMMANDS["logs"], arguments, positional="id")
    if config is None:
        return 0
    config = with_address_from(config, dict(os.environ))
    from pipeline.submission import cluster, watch

    client = cluster.connect(config.address)
    cluster.find_job(client, config.address, config.id)
    if config.follow:
        return look_after(client, config.address, config.id, follow=True)
    print(watch.read_log(client, config.address, config.id), end="")
    return 0


def stop(arguments: Sequence[str]) -> int:
    """Stop a job and wait until it is gone."""
    config = parse(JobConfig, "jobs stop", SUBCOMMANDS["stop"], arguments, positional="id")
    if config is None:
        return 0
    config = with_address_from(config, dict(os.environ))
    from pipeline.submission import cluster

    client = cluster.connect(config.address)
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


def _started(job: JobDetails) -> str:
    if not job.start_time:
        return "-"
    return datetime.fromtimestamp(job.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _took(job: JobDetails) -> str:
    if not job.start_time:
        return "-"
    return duration((job.end_time or time.time() * 1000) / 1000 - job.start_time / 1000)


def _what(job: JobDetails) -> str:
    from pipeline.submission.cluster import OUT_KEY, VERB_KEY

    metadata = job.metadata or {}
    if VERB_KEY not in metadata:
        return " ".join(job.entrypoint.split())[:80]
    return f"{metadata[VERB_KEY]} -> {metadata.get(OUT_KEY, '?')}"


_HANDLERS = {"list": list_jobs, "status": status, "logs": logs, "stop": stop}
