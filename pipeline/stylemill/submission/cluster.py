"""Client of a cluster's job API: connect, submit, list, and watch jobs until they end.

Errors between this machine and the cluster become a ConfigError (wrong address, token or version) or a ClusterError
(the cluster stopped answering) of one line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus

from stylemill import __version__
from stylemill.errors import ClusterError, ConfigError
from stylemill.ray_internals import DASHBOARD_LOGGERS, DashboardClient, is_token_missing
from stylemill.submission.config import PROGRESS_MARK
from stylemill.submission.request import JobRequest, entrypoint, staged_package

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
"""Seconds that a head may take after its start until it accepts jobs."""
STOP_WAIT_S = 60
"""Seconds that a job gets after `jobs stop` to write a checkpoint or finished results before it is killed."""
POLL_PERIOD_S = 1.0
PROGRESS_PERIOD_S = 10.0
SILENCE_TIMEOUT_S = 120.0
"""Seconds without an answer after which the watching of a job ends with an error; the job continues."""

VERB_KEY, OUT_KEY, VERSION_KEY = "stylemill_verb", "stylemill_out", "stylemill_version"
"""Names in a job's metadata."""

DONE_CODES = (0, 3)
"""Exit codes after which nothing is left to do."""


def connect(address: str) -> DashboardClient:
    """Return a client of a cluster's job API.

    Raises:
        ConfigError: nothing answers at the address, what answers is not a Ray dashboard, the token is refused, or the
            cluster runs another version of Ray.
    """
    for name in DASHBOARD_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers it to the argument
    _check_reachable(address)
    try:
        client = DashboardClient(address)
        metadata = client.get_json("/api/version")
    except AuthenticationError as error:
        raise ConfigError("address", address, *_token_problem(error)) from None
    except (requests.RequestException, ConnectionError, RuntimeError, ValueError, KeyError, TypeError) as error:
        cure = "give the URL of a Ray dashboard, http://HOST:8265"
        raise ConfigError("address", address, f"is not a Ray dashboard ({_one_line(error)})", cure) from None
    _check_ray_version(address, str(metadata["ray_version"]))
    return client


def _check_reachable(address: str) -> None:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        cure = "check the address, that the cluster runs, and that its port can be reached from this machine"
        raise ConfigError("address", address, f"does not answer ({_one_line(error)})", cure) from None


def _token_problem(error: AuthenticationError) -> tuple[str, str]:
    cure = "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN"
    if is_token_missing(error):
        return "requires a token, and none is set on this machine", cure
    return "refuses this token", cure


def _check_ray_version(address: str, theirs: str) -> None:
    if theirs != ray.__version__:
        cure = f"use a stylemill for Ray {theirs}, or a cluster with Ray {ray.__version__}"
        raise ConfigError("address", address, f"runs Ray {theirs}, this is Ray {ray.__version__}", cure)


def check_python_version(client: DashboardClient, address: str) -> None:
    """Raise ConfigError if the cluster's version of Python differs from this process's."""
    with translated_errors(address):
        data = client.get_json("/api/v0/cluster_metadata")["data"]
    theirs, ours = str(data["pythonVersion"]), ".".join(map(str, sys.version_info[:2]))
    if ".".join(theirs.split(".")[:2]) != ours:
        cure = (
            f"submit from Python {'.'.join(theirs.split('.')[:2])}, or run the cluster's own stylemill with --use-image"
        )
        raise ConfigError("address", address, f"runs Python {theirs}, this is Python {ours}", cure)


def node_resources(client: DashboardClient, address: str) -> list[Mapping[str, float]]:
    """Return the resources of each machine of a cluster that is alive."""
    with translated_errors(address):
        answer = client.get_json("/api/v0/nodes?detail=1&limit=10000")
        return [node["resources_total"] for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]


@contextmanager
def translated_errors(address: str) -> Iterator[None]:
    """Raise errors in talking to a cluster that answered before as one line.

    Raises:
        ClusterError: the connection broke, or the cluster answered with an error.
    """
    try:
        yield
    except (requests.RequestException, OSError, RuntimeError, AuthenticationError) as error:
        raise ClusterError(f"{address} failed to answer: {_one_line(error)}; its jobs continue, try again") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def job_state(job: JobDetails) -> str:
    """Return whether a job is ``active``, ``done`` (nothing is left to do) or ``ended`` (failed, stopped)."""
    if not job.status.is_terminal():
        return "active"
    if job.status == JobStatus.SUCCEEDED or job.driver_exit_code in DONE_CODES:
        return "done"
    return "ended"


def job_exit_code(job: JobDetails) -> int:
    """Return the exit code of a job that has ended: its driver's 0, 1, 2 or 3; 1 for every other end."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    return job.driver_exit_code if job.driver_exit_code in (1, 2, 3) else 1


def find_jobs(client: DashboardClient, address: str) -> list[JobDetails]:
    """Return all submitted jobs of a cluster, oldest first."""
    with translated_errors(address):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def find_job(client: DashboardClient, address: str, job_id: str) -> JobDetails:
    """Return one job.

    Raises:
        ConfigError: the cluster has no job of this id.
    """
    for job in find_jobs(client, address):
        if job.submission_id == job_id:
            return job
    cure = "copy one from `stylemill jobs list`; a cluster forgets its jobs when it restarts"
    raise ConfigError("id", job_id, f"is not a job of {address}", cure)


def submit_request(client: DashboardClient, address: str, request: JobRequest, job_id: str, *, use_image: bool) -> bool:
    """Submit a request; return False if another process submitted it under this id at the same moment.

    Of this machine's environment only the log level is sent.
    """
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    if "STYLEMILL_LOG" in os.environ:
        variables["STYLEMILL_LOG"] = os.environ["STYLEMILL_LOG"]
    with translated_errors(address), staged_package(request.yaml(), with_code=not use_image) as folder:
        start_s = time.monotonic()
        while True:
            try:
                client.submit_job(
                    entrypoint=entrypoint(request.verb),
                    submission_id=job_id,
                    runtime_env={"working_dir": str(folder), "env_vars": variables},
                    entrypoint_num_cpus=request.driver_cpus or None,
                    metadata={VERB_KEY: request.verb, OUT_KEY: request.out, VERSION_KEY: __version__},
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                # A head that has just started takes a while to find its own agent.
                if "No available agent" not in str(error) or time.monotonic() - start_s > START_TIMEOUT_S:
                    raise
                time.sleep(1.0)
            else:
                return True


def our_jobs(jobs: Sequence[JobDetails]) -> list[JobDetails]:
    """Return the jobs that stylemill submitted."""
    return [job for job in jobs if VERB_KEY in (job.metadata or {})]


def wait_for_end(
    client: DashboardClient, address: str, job_id: str, on_status: Callable[[JobDetails, str | None], None]
) -> JobDetails:
    """Wait until a job has ended.

    Args:
        client: of the cluster.
        address: for messages.
        job_id: the job.
        on_status: called every second with the job and its newest progress, read every ten seconds (None if none).

    Raises:
        ClusterError: the cluster has not answered for SILENCE_TIMEOUT_S.
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
            if time.monotonic() - last_answer_s > SILENCE_TIMEOUT_S:
                raise
            log.info("%s", error)
            time.sleep(POLL_PERIOD_S)
            continue
        on_status(job, progress)
        if job.status.is_terminal():
            return job
        time.sleep(POLL_PERIOD_S)


def follow_log(client: DashboardClient, address: str, job_id: str, on_text: Callable[[str], None]) -> JobDetails:
    """Pass a job's log, from its beginning, to ``on_text`` as it grows; return when the job has ended.

    Raises:
        ClusterError: the cluster has not answered for SILENCE_TIMEOUT_S.
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
                    if num_seen > num_shown:  # a new connection starts at the beginning of the log
                        on_text(text[-(num_seen - num_shown) :])
                        num_shown = num_seen

            asyncio.run(tail())
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            if time.monotonic() - last_answer_s > SILENCE_TIMEOUT_S:
                raise ClusterError(f"{address} stopped answering ({error}); the job continues there") from error
        try:
            job = find_job(client, address, job_id)
        except ClusterError:
            if time.monotonic() - last_answer_s > SILENCE_TIMEOUT_S:
                raise
        else:
            last_answer_s = time.monotonic()
            if job.status.is_terminal():
                rest = read_log(client, address, job_id)[num_shown:]
                if rest:
                    on_text(rest)
                return job
        time.sleep(POLL_PERIOD_S)


def read_log(client: DashboardClient, address: str, job_id: str) -> str:
    """Return a job's log so far."""
    with translated_errors(address):
        return client.get_job_logs(job_id) or ""


def newest_progress(client: DashboardClient, address: str, job_id: str) -> str | None:
    """Return the newest progress in a job's log, or None."""
    lines = read_log(client, address, job_id).splitlines()
    newest = next((line for line in reversed(lines) if line.startswith(PROGRESS_MARK)), None)
    return None if newest is None else newest.removeprefix(PROGRESS_MARK)
