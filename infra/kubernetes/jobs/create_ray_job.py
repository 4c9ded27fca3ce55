"""Create a RayJob from a suspended one and wait for its end. The nightly CronJob runs this script in its pod.

The new job has the name of the CronJob's run, so a restarted pod finds the job that its predecessor created and keeps
waiting for it. Exit code 0: the RayJob is complete; 1: it failed, or the Kubernetes API refused a request.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import requests

log = logging.getLogger("create_ray_job")

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
"""Where Kubernetes puts a pod's token, namespace and the API's certificate."""
API = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
POLL_S = 10.0
PATIENCE_S = 600.0
"""Seconds without an answer of the API after which the script gives up."""
GOOD, BAD = {"Complete"}, {"Failed", "ValidationFailed"}


class RayJobs:
    """The RayJobs of this pod's namespace."""

    def __init__(self) -> None:
        namespace = (ACCOUNT / "namespace").read_text().strip()
        self._url = f"{API}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._certificate = ACCOUNT / "ca.crt"

    def get(self, name: str) -> dict[str, Any]:
        """Return a RayJob.

        Raises:
            requests.RequestException: it is not there, or the API does not answer.
        """
        answer = self._ask("GET", f"{self._url}/{name}")
        answer.raise_for_status()
        return dict(answer.json())

    def create(self, job: dict[str, Any]) -> bool:
        """Create a RayJob; return whether it is new.

        Raises:
            requests.RequestException: the API refuses it, or does not answer.
        """
        answer = self._ask("POST", self._url, job)
        if answer.status_code == requests.codes.conflict:
            return False
        answer.raise_for_status()
        return True

    def _ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> requests.Response:
        # Read each time: Kubernetes renews the token.
        headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"}
        verify: str | bool = str(self._certificate) if self._certificate.exists() else True
        return requests.request(method, url, json=body, headers=headers, verify=verify, timeout=30)


def from_template(template: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a RayJob like another one, which starts at once."""
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"name": name, "labels": {"stylemill/made-from": template["metadata"]["name"]}},
        "spec": {**template["spec"], "suspend": False},
    }


def wait_for_end(jobs: RayJobs, name: str, poll_s: float) -> bool:
    """Return whether a RayJob completed.

    Raises:
        requests.RequestException: the API does not answer for longer than ``PATIENCE_S``.
    """
    answered_s, seen = time.monotonic(), ""
    while True:
        try:
            status = jobs.get(name).get("status", {})
            answered_s = time.monotonic()
        except requests.RequestException as error:
            is_gone = error.response is not None and error.response.status_code == requests.codes.not_found
            if is_gone or time.monotonic() - answered_s > PATIENCE_S:
                raise
            log.warning("the Kubernetes API does not answer (%s); asking again", type(error).__name__)
            status = {}
        state = status.get("jobDeploymentStatus", seen)
        if state != seen:
            log.info("RayJob %s: %s %s", name, state, status.get("message", ""))
            seen = state
        if state in GOOD | BAD:
            return state in GOOD
        time.sleep(poll_s)


def main() -> int:
    """Make the job, wait, and return the exit code."""
    parser = argparse.ArgumentParser(description="Make a RayJob from a suspended one and wait for its end.")
    parser.add_argument("--template", required=True, help="name of the suspended RayJob")
    parser.add_argument("--name", required=True, help="name of the new one")
    parser.add_argument("--poll-s", type=float, default=POLL_S, help="seconds between two checks")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    jobs = RayJobs()
    try:
        is_new = jobs.create(from_template(jobs.get(arguments.template), arguments.name))
        log.info("RayJob %s %s", arguments.name, "created" if is_new else "is there already; waiting for its end")
        return 0 if wait_for_end(jobs, arguments.name, arguments.poll_s) else 1
    except requests.RequestException as error:
        log.error("gave up: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
