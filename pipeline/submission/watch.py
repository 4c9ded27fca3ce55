"""Following a job that was submitted: its log, its progress, its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.errors import ClusterError
from pipeline.submission.cluster import find_job, talking_to
from pipeline.submission.config import PROGRESS_MARK

log = logging.getLogger(__name__)

POLL_PERIOD_S = 1.0
PROGRESS_PERIOD_S = 10.0
SILENCE_S = 120.0
"""A cluster that cannot be reached for so long is given up; its jobs go on."""


def wait_for_end(
    client: JobSubmissionClient, address: str, job_id: str, on_look: Callable[[JobDetails, str | None], None]
) -> JobDetails:
    """Wait until a job has ended.

    Args:
        client: of the cluster.
        address: for messages.
        job_id: the job.
        on_look: told every second, with the newest line of progress every ten (None where there is none).

    Raises:
        ClusterError: the cluster cannot be reached any more.
    """
    last_answer_s = time.monotonic()
    last_progress_s, progress = 0.0, None
    while True:
        try:
            job = find_job(client, address, job_id)
            if time.monotonic() - last_progress_s >= PROGRESS_PERIOD_S:
                progress, last_progress_s = newest_progress(client, address, job_id), time.monotonic()
            last_answer_s = time.monotonic()
        except ClusterError as error:
            if time.monotonic() - last_answer_s > SILENCE_S:
                raise
            log.info("%s", error)
            time.sleep(POLL_PERIOD_S)
            continue
        on_look(job, progress)
        if job.status.is_terminal():
            return job
        time.sleep(POLL_PERIOD_S)


def follow_log(client: JobSubmissionClient, address: str, job_id: str, on_text: Callable[[str], None]) -> JobDetails:
    """Hand out a job's log as it grows, from its beginning; return when the job has ended.

    Raises:
        ClusterError: the cluster cannot be reached any more.
    """
    num_shown, last_answer_s = 0, time.monotonic()
    while True:
        num_seen = 0
        try:

            async def tail() -> None:
                nonlocal num_seen, num_shown, last_answer_s
                async for text in client.tail_job_logs(job_id):
                    last_answer_s = time.monotonic()
                    num_seen += len(text)
                    if num_seen > num_shown:  # after a broken connection the log starts over
                        on_text(text[-(num_seen - num_shown) :])
                        num_shown = num_seen

            asyncio.run(tail())
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            if time.monotonic() - last_answer_s > SILENCE_S:
                raise ClusterError(f"{address} stopped answering ({error}); the job goes on there") from error
        try:
            job = find_job(client, address, job_id)
        except ClusterError:
            if time.monotonic() - last_answer_s > SILENCE_S:
                raise
        else:
            last_answer_s = time.monotonic()
            if job.status.is_terminal():
                rest = read_log(client, address, job_id)[num_shown:]
                if rest:
                    on_text(rest)
                return job
        time.sleep(POLL_PERIOD_S)


def read_log(client: JobSubmissionClient, address: str, job_id: str) -> str:
    """Return a job's log so far."""
    with talking_to(address):
        return client.get_job_logs(job_id) or ""


def newest_progress(client: JobSubmissionClient, address: str, job_id: str) -> str | None:
    """Return how far a job is, as it last said itself, or None."""
    lines = read_log(client, address, job_id).splitlines()
    newest = next((line for line in reversed(lines) if line.startswith(PROGRESS_MARK)), None)
    return None if newest is None else newest.removeprefix(PROGRESS_MARK)
