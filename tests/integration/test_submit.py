"""Verbs as jobs on a cluster of one machine: once, with their own exit codes, without secrets, seen by Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stylemill.cli.main import DONE, TOO_MANY_FAILED, WRONG_USE
from stylemill.manifest.read import find_run, read_manifest
from stylemill.storage import Storage
from tests.clusters import Cluster, free_port
from tests.drawn import image_bytes
from tests.integration.conftest import MIXED, fill
from tests.processes import wait_for
from tests.unit.test_observability import RULES, expressions, names_in

SECRET = "planted-hunter2-secret"

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(head: Cluster, stylemill: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Submit:
    """Return the command line, with the head's token and secrets in its environment, in a folder of its own."""
    folder = tmp_path_factory.mktemp("here")
    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_API_KEY"), SECRET)

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return stylemill(*arguments, cwd=folder, **{**head.environment, **secrets, **environment})

    fill(folder / "in", MIXED)
    fill(folder / "content", {f"{seed}.jpg": image_bytes(90, 130, seed=seed) for seed in range(9)})
    (folder / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    return call


def test_without_the_token_nothing_is_submitted(run: Submit, head: Cluster):
    submit = ("submit", "--address", head.address, "--shared-filesystem", *TRAIN)
    for environment, problem in (
        ({"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "wrong"}, "refuses this token"),
        ({"RAY_AUTH_MODE": "disabled"}, "requires a token"),
    ):
        answer = run(*submit, **environment)
        assert (answer.returncode, answer.stdout) == (WRONG_USE, ""), answer.stdout + answer.stderr
        assert answer.stderr.startswith("stylemill: address=") and answer.stderr.count("\n") == 1, answer.stderr
        assert problem in answer.stderr
    assert head.get("/api/jobs/") == []


@pytest.fixture(scope="module")
def prometheus(head: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Any] | None]:
    """A Prometheus that scrapes the cluster, as a function of API path and query; None where it is not installed."""
    if not shutil.which("prometheus"):
        yield None
        return
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    targets = f"{head.folder}/head/ray/prom_metrics_service_discovery.json"
    (folder / "prometheus.yaml").write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{RULES}']
scrape_configs:
  - job_name: ray
    file_sd_configs: [{{files: ['{targets}'], refresh_interval: 1s}}]
"""
    )
    words = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, cwd=folder
        )

    def ask(path: str, query: str = "") -> Any:
        url = f"http://127.0.0.1:{port}/api/v1/{path}" + (f"?query={urllib.parse.quote(query)}" if query else "")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            return json.load(answer)["data"]

    yield ask
    server.kill()
    server.wait()


TRAIN = (
    *("train", "--style-image", "style.png", "--content", "content", "--out", "trained", "--steps", 30),
    *("--width", 0.125, "--crop-px", 64, "--style-size-px", 64, "--cpus-per-worker", 1),
    *("--loss-network", "pyramid"),
)


@pytest.fixture(scope="module")
def two_jobs(head: Cluster, prometheus: object, run: Submit, style_file: Path) -> dict[str, Any]:
    """Two verbs submitted one after the other without waiting, so that they run at once; what was said and left."""
    stylize = ["stylize", "--model", style_file, "--input", "in", "--out", "out", "--num-actors", 1]

    def submit(*words: object) -> subprocess.CompletedProcess[str]:
        return run("submit", "--address", head.address, "--shared-filesystem", *words)

    said = {"train": submit(*TRAIN), "stylize": submit(*stylize), "again": submit(*stylize)}

    def all_ended() -> bool:
        jobs: Any = head.get("/api/jobs/")
        return all(job["status"] not in ("PENDING", "RUNNING") for job in jobs)

    wait_for("the end of the jobs", None, all_ended)
    (folder,) = {Path(name).parent for name in re.findall(r"/\S+/out\b", run("jobs", "list", **at(head)).stdout)}
    return {"submit": submit, "stylize words": stylize, "folder": folder, **said}


def at(head: Cluster) -> dict[str, str]:
    return {"RAY_ADDRESS": head.address}


def id_in(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == DONE, answer.stdout + answer.stderr
    found = re.match(r"job (\S+) ", answer.stdout)
    assert found, answer.stdout
    return found[1]


def test_two_jobs_at_once_both_end_as_if_alone(two_jobs: dict[str, Any], run: Submit, head: Cluster):
    trained = run("jobs", "logs", id_in(two_jobs["train"]), "--follow", **at(head))
    assert trained.returncode == DONE and "style:    " in trained.stdout, trained.stdout + trained.stderr
    painted = run("jobs", "logs", id_in(two_jobs["stylize"]), "--follow", **at(head))
    assert painted.returncode == TOO_MANY_FAILED and "too many sources failed" in painted.stdout, painted.stderr
    assert "1 x Truncated" in painted.stdout
    folder = two_jobs["folder"]
    assert read_manifest(Storage(), find_run(Storage(), str(folder / "out"))).num_rows == len(MIXED)
    assert (folder / "trained" / "style.safetensors").exists()


def test_submitting_again_does_not_run_again(two_jobs: dict[str, Any], head: Cluster):
    job = id_in(two_jobs["stylize"])
    assert id_in(two_jobs["again"]) == job
    assert two_jobs["again"].stdout.startswith(f"job {job} is already running; nothing was submitted")
    third = two_jobs["submit"]("--wait", *two_jobs["stylize words"])
    assert third.returncode == TOO_MANY_FAILED and "has already finished" in third.stdout, third.stderr
    assert len(head.get("/api/jobs/")) == 2  # type: ignore[arg-type]


def test_looking_after_jobs(two_jobs: dict[str, Any], run: Submit, head: Cluster):
    job = id_in(two_jobs["stylize"])
    listed = run("jobs", "list", **at(head)).stdout.splitlines()
    assert len(listed) == 3 and re.match(rf"{job} +failed +3 ", listed[1]) and listed[1].endswith("/out")
    status = run("jobs", "status", job, **at(head)).stdout
    assert "done, but too many sources failed" in status
    assert f"progress: {len(MIXED)}/{len(MIXED)} images" in status and "2 failed" in status
    stopped = run("jobs", "stop", job, **at(head))
    assert stopped.returncode == DONE and "has already ended" in stopped.stdout


def test_another_verb_with_the_code_that_is_installed_there(two_jobs: dict[str, Any], head: Cluster):
    done = two_jobs["submit"]("--use-image", "--wait", "manifest", "verify", "out")
    assert done.returncode == DONE and "stylemill-manifest-verify-" in done.stdout, done.stdout + done.stderr
    packages = (head.folder / "head").rglob("stylemill-job.yaml")
    assert sorted((path.parent / "stylemill").exists() for path in packages) == [False, True, True]


def test_measuring_as_a_job(two_jobs: dict[str, Any]):
    words = ["evaluate", "--model", "trained/style.safetensors", "--content", "content", "--out", "measured"]
    done = two_jobs["submit"]("--wait", *words, "--num-images", 2, "--size-px", 64, "--style-size-px", 64)
    assert done.returncode == DONE, done.stdout + done.stderr
    table = pq.read_table(two_jobs["folder"] / "measured" / "evaluation.parquet")
    assert table.num_rows == 2 and set(table["status"].to_pylist()) == {"ok"}


def test_no_secret_of_the_submitter_reaches_the_cluster(two_jobs: dict[str, Any], head: Cluster):
    assert SECRET not in json.dumps(head.get("/api/jobs/"))
    files = [path for path in head.folder.rglob("*") if path.is_file() and path.stat().st_size < 50 * 2**20]
    assert len([path for path in files if path.name == "stylemill-job.yaml"]) >= 2  # what was sent is searched as well
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_prometheus_saw_every_metric_that_dashboard_and_alerts_name(two_jobs: dict[str, Any], prometheus: Any):
    if prometheus is None:
        pytest.skip("needs prometheus (Debian: apt-get install prometheus)")
    named = set().union(*map(names_in, expressions()))
    seen = {name for name in named if prometheus("query", f"count_over_time({name}[10m])")["result"]}
    assert named - seen == set()
    counts = prometheus("query", "sum by (status) (max_over_time(ray_stylemill_images_total[10m]))")["result"]
    assert {one["metric"]["status"]: int(one["value"][1]) for one in counts} == {"ok": 11, "failed": 2, "skipped": 1}
    retries = prometheus("query", "max_over_time(ray_stylemill_storage_retries_total[10m])")["result"]
    assert {one["value"][1] for one in retries} == {"0"}  # there before the first one, so that an alert can see that
    loaded = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert len(loaded) >= 8 and {rule["health"] for rule in loaded} == {"ok"}
    for expression in expressions():
        if not expression.startswith("label_values"):
            plain = expression.replace("$__rate_interval", "1m").replace("$run", ".*")
            prometheus("query", plain)  # raises where Prometheus cannot read it
