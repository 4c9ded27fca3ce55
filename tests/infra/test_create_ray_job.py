"""The pod that makes the night's RayJob, as a process, against a Kubernetes API over loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.infra.manifests import KUBERNETES, read

SCRIPT = KUBERNETES / "jobs" / "create_ray_job.py"
PREFIX = "/apis/ray.io/v1/namespaces/stylemill/rayjobs"


class Api(ThreadingHTTPServer):
    """Keeps RayJobs as Kubernetes does; a job takes on the next state of ``states`` each time somebody looks."""

    def __init__(self, states: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        [template] = read(KUBERNETES / "jobs" / "retrain.yaml")
        self.jobs: dict[str, Any] = {"stylemill-retrain": template}
        self.states = states
        self.num_created = 0
        self.refusals: list[int] = []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        job = self.server.jobs.get(self.path.removeprefix(PREFIX + "/"))
        if job is None:
            return self.answer(404, {"reason": "NotFound"})
        if self.server.refusals:
            return self.answer(self.server.refusals.pop(), {"reason": "later"})
        if job["metadata"]["name"] != "stylemill-retrain":
            state = self.server.states.pop(0) if len(self.server.states) > 1 else self.server.states[0]
            job["status"] = {"jobDeploymentStatus": state}
        return self.answer(200, job)

    def do_POST(self) -> None:
        assert self.path == PREFIX
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = job["metadata"]["name"]
        if name in self.server.jobs:
            return self.answer(409, {"reason": "AlreadyExists"})
        self.server.jobs[name] = job
        self.server.num_created += 1
        return self.answer(201, job)

    def answer(self, code: int, body: dict[str, Any]) -> None:
        if self.headers["Authorization"] != "Bearer planted-token":
            code, body = 401, {"reason": "Unauthorized"}
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api(["Initializing", "Running", "Complete"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def run(api: Api, folder: Path, *, token: str = "planted-token", name: str = "nightly-1") -> Any:
    for file, text in (("token", token), ("namespace", "stylemill")):
        (folder / file).write_text(text)
    return subprocess.run(
        [sys.executable, SCRIPT, "--template", "stylemill-retrain", "--name", name, "--poll-s", "0.01"],
        env={"SERVICE_ACCOUNT_DIR": str(folder), "KUBERNETES_API": f"http://127.0.0.1:{api.server_port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_suspended_job_is_copied_and_waited_for(api: Api, tmp_path: Path):
    done = run(api, tmp_path)
    assert done.returncode == 0, done.stderr
    made, template = api.jobs["nightly-1"], api.jobs["stylemill-retrain"]
    assert made["spec"] == {**template["spec"], "suspend": False} and template["spec"]["suspend"]
    assert "Running" in done.stderr and "Complete" in done.stderr
    assert "planted-token" not in done.stderr + done.stdout


def test_a_pod_started_again_makes_no_second_job(api: Api, tmp_path: Path):
    assert run(api, tmp_path).returncode == 0
    again = run(api, tmp_path)
    assert again.returncode == 0 and "is there already" in again.stderr
    assert api.num_created == 1


def test_a_failed_job_is_a_failure(api: Api, tmp_path: Path):
    api.states = ["Running", "Retrying", "Failed"]
    assert run(api, tmp_path).returncode == 1


def test_answers_that_fail_for_a_while_do_not_end_the_wait(api: Api, tmp_path: Path):
    assert run(api, tmp_path, name="nightly-2").returncode == 0
    api.refusals, api.states = [503, 500], ["Complete"]
    done = run(api, tmp_path, name="nightly-2")  # the template's GET takes the first refusal
    assert done.returncode == 1 and "gave up" in done.stderr
    api.refusals = []
    assert run(api, tmp_path, name="nightly-2").returncode == 0


def test_a_missing_template_and_a_refused_token_are_told(api: Api, tmp_path: Path):
    del api.jobs["stylemill-retrain"]
    assert "404" in run(api, tmp_path).stderr
    refused = run(api, tmp_path, token="wrong")
    assert refused.returncode == 1 and "401" in refused.stderr
