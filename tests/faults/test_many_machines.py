"""A head and two workers that share the network and the store alone; a worker machine dies under each verb."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stylemill.storage import Storage, join
from stylemill.training.checkpoint import Checkpoints
from tests.clusters import Cluster, can_isolate, cluster, forwarded
from tests.drawn import image_bytes, style_model
from tests.faults.outcome import outcome_of
from tests.processes import wait_for
from tests.training_runs import assert_same_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not can_isolate(), reason="needs root rights and network namespaces (ip, unshare)"),
]

STEPS, NUM_IMAGES = 24, 96


@pytest.fixture(scope="module")
def store(s3_service: dict[str, str]) -> Iterator[tuple[Storage, str]]:
    """A bucket with a style image, photographs and a style model; as this test sees it."""
    import botocore.session

    patch = pytest.MonkeyPatch()
    for name, value in s3_service.items():
        patch.setenv(name, value)
    botocore.session.get_session().create_client("s3").create_bucket(Bucket="machines")
    storage = Storage()
    storage.write_bytes("s3://machines/style.png", image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(9):
        storage.write_bytes(f"s3://machines/content/{seed}.jpg", image_bytes(90, 130, seed=seed))
    for seed in range(NUM_IMAGES):
        data = image_bytes(300 + seed % 7, 320, seed=seed) if seed % 20 else b"\xff\xd8\xff no more"
        storage.write_bytes(f"s3://machines/photos/{seed % 5}/{seed:03d}.jpg", data)
    from stylemill.style_model import to_bytes

    storage.write_bytes("s3://machines/slow.safetensors", to_bytes(style_model("slow", width=0.5)))
    yield storage, "s3://machines"
    patch.undo()


@pytest.fixture(scope="module")
def machines(s3_service: dict[str, str], store: object) -> Iterator[tuple[Cluster, str]]:
    """A head without CPUs and two workers of one; the store's URL as they see it. Only they hold its credentials."""
    with cluster(isolated=True) as made, forwarded(made.host_address, s3_service["AWS_ENDPOINT_URL"]) as endpoint:
        made.machine_environment |= {name: value for name, value in s3_service.items() if "ENDPOINT" not in name}
        made.start_head(num_cpus=0)
        made.start_worker("one")
        made.start_worker("two")
        yield made, endpoint


@pytest.fixture
def submit(machines: tuple[Cluster, str], stylemill: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that submits a verb from a place that knows no credential of the store."""
    made, endpoint = machines
    nothing = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"), "")

    def run(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return stylemill(
            *("submit", "--address", made.address, verb, "--storage.endpoint-url", endpoint, *arguments),
            **{**nothing, **made.environment},
        )

    return run


def job_of(submitted: subprocess.CompletedProcess[str]) -> str:
    assert submitted.returncode == 0, submitted.stderr
    found = re.search(r"job (\S+) submitted", submitted.stdout)
    assert found, submitted.stdout
    return found[1]


@pytest.fixture
def finish(machines: tuple[Cluster, str], stylemill: Callable[..., Any]) -> Callable[..., str]:
    """Return a function that waits for a job's end, checks its exit code and returns its log."""
    made, _ = machines

    def wait(job: str, exit_code: int = 0) -> str:
        def ended() -> bool:
            jobs = {one["submission_id"]: one["status"] for one in made.get("/api/jobs/")}  # type: ignore[attr-defined]
            return jobs[job] in ("SUCCEEDED", "FAILED", "STOPPED")

        wait_for(f"the end of {job}", None, ended)
        done = stylemill("jobs", "logs", job, "--follow", "--address", made.address, **made.environment)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return str(done.stdout)

    return wait


def replace_machine(made: Cluster, name: str, new_name: str) -> None:
    made.kill(name)
    made.start_worker(new_name)


def train_words(out: str) -> list[object]:
    settings = {
        "style-image": "s3://machines/style.png", "content": "s3://machines/content", "out": out, "steps": STEPS,
        "width": 0.125, "crop-px": 64, "batch-size": 4, "style-size-px": 64, "cpus-per-worker": 1, "num-workers": 2,
        "checkpoint-every": 2, "keep-checkpoints": 3, "loss-network": "pyramid",
    }  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def test_training_over_two_machines_of_which_one_dies(
    machines: tuple[Cluster, str], store: tuple[Storage, str], submit: Callable, finish: Callable
):
    made, (storage, bucket) = machines[0], store
    undisturbed, disturbed = join(bucket, "styles", "undisturbed"), join(bucket, "styles", "disturbed")
    finish(job_of(submit("train", *train_words(undisturbed))))
    job = job_of(submit("train", *train_words(disturbed)))
    checkpoints = Checkpoints(storage, join(disturbed, "checkpoints"))
    wait_for("a checkpoint", None, lambda: (newest := checkpoints.newest()) is not None and newest.step >= 4)
    replace_machine(made, "one", "three")
    said = finish(job)
    assert "resumed at step" in said
    assert_same_run(undisturbed, disturbed)


def test_a_bulk_run_over_two_machines_of_which_one_dies(
    machines: tuple[Cluster, str], store: tuple[Storage, str], submit: Callable, finish: Callable
):
    made, (storage, bucket) = machines[0], store
    words = ["--model", "s3://machines/slow.safetensors", "--input", "s3://machines/photos", "--max-memory", "1GiB"]
    undisturbed, disturbed = join(bucket, "undisturbed"), join(bucket, "disturbed")
    finish(job_of(submit("stylize", *words, "--out", undisturbed)), exit_code=3)
    again = submit("stylize", *words, "--out", undisturbed)
    job = job_of(submit("stylize", *words, "--out", disturbed))

    def painted() -> bool:
        return len(list(storage.list_objects(join(disturbed, "images")))) >= 4

    wait_for("images", None, painted)
    made.kill("two")
    said = finish(job, exit_code=3)
    assert "5 x Truncated" in said or "5 failed" in said, said
    assert outcome_of(undisturbed, storage) == outcome_of(disturbed, storage)
    # Where the model cannot be read, only the job can tell that there is nothing to do; it is not done twice.
    assert "already committed" in finish(job_of(again))


def test_what_no_machine_can_hold_is_told_at_once(submit: Callable, finish: Callable):
    words = ["--model", "s3://machines/slow.safetensors", "--input", "s3://machines/photos", "--out", "s3://machines/x"]
    assert "is more CPUs than any machine" in finish(
        job_of(submit("stylize", *words, "--threads-per-actor", 2)), exit_code=2
    )
    assert "on one machine" in finish(
        job_of(submit("train", *train_words("s3://machines/y"), "--cpus-per-worker", 2)), exit_code=2
    )
