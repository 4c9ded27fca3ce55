"""What fault tests share: jobs as processes of their own, each with a cluster of its own."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from stylemill.storage import Storage, join
from tests.drawn import image_bytes
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import Helper, Job, kill_group, start_stylemill, wait_for

NUM_IMAGES = 48


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and three files that are none; nobody may change it."""
    folder = tmp_path_factory.mktemp("library") / "in"
    for number in range(NUM_IMAGES):
        path = folder / f"{number % 5}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(96 + number % 7, 128 - number % 5, number))
    (folder / "cut.jpg").write_bytes(image_bytes(90, 90, 99)[:400])
    (folder / "notes.txt").write_text("Rain on Sunday.\n" * 10)
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def undisturbed(
    library: Path,
    style_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stylemill: Callable[..., subprocess.CompletedProcess[str]],
) -> Outcome:
    """The outcome of a run that nothing disturbs, on local files."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = stylemill(*paint_verb(style_file, library, out))
    assert done.returncode == 3, done.stderr
    return outcome_of(str(out))


def paint_verb(style: Path, source: object, out: object, *more: object) -> list[object]:
    """Return the words of a run over the library; two sources are broken, so it ends with exit code 3.

    One actor paints, unless ``more`` says otherwise: a second one takes longer to start than to share the work.
    """
    bounds = ["--storage.timeout-s", "3", "--storage.retry-deadline-s", "60", "--num-actors", "1", "--runner", "ray"]
    return ["stylize", "--model", style, "--input", source, "--out", out, "--max-failed-fraction", "0", *bounds, *more]


def put_library(library: Path, bucket: str) -> str:
    """Put the library into a bucket and return its location there."""
    source, storage = join(bucket, "in"), Storage()
    for path in library.rglob("*"):
        if path.is_file():
            storage.write_bytes(join(source, str(path.relative_to(library))), path.read_bytes())
    return source


@pytest.fixture(scope="session")
def training_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style and nine pictures to train on; nobody may change them."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "content").mkdir()
    (folder / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(9):
        (folder / "content" / f"{seed}.jpg").write_bytes(image_bytes(90, 130, seed=seed))
    return folder


@pytest.fixture
def start_job() -> Iterator[Callable[..., Job]]:
    """Return ``start_stylemill``; what is left of the jobs after the test is killed."""
    jobs: list[Job] = []

    def start(*arguments: object, **environment: str) -> Job:
        jobs.append(start_stylemill(*arguments, **environment))
        return jobs[-1]

    yield start
    for job in jobs:
        kill_group(job)


class FaultProxy(Helper):
    """A misbehaving proxy that runs.

    Args:
        service: the environment that leads to the S3 service behind it.
        arguments: mode, which requests, seed.
    """

    def __init__(self, service: dict[str, str], *arguments: object) -> None:
        super().__init__("tests.faults.fault_proxy", service["AWS_ENDPOINT_URL"], *arguments)
        self.environment = {**service, "AWS_ENDPOINT_URL": self.greeting}

    def wait_until_stalled(self, job: Job) -> None:
        """Return once a request stalls; fail if the job ends before."""
        wait_for("a stall", job, lambda: select.select([self.process.stdout], [], [], 0)[0])
        assert self.answer() == "stalled"

    def go_on(self) -> None:
        """Let requests pass again, those that wait included."""
        self.tell("go on")


OpenProxy = Callable[..., AbstractContextManager[FaultProxy]]


@pytest.fixture
def fault_proxy(s3_service: dict[str, str]) -> OpenProxy:
    """Return a function that puts a misbehaving proxy before the S3 service (see ``tests.faults.fault_proxy``)."""

    @contextmanager
    def open_proxy(mode: str, which: object, seed: int = 0) -> Iterator[FaultProxy]:
        proxy = FaultProxy(s3_service, mode, which, seed)
        try:
            yield proxy
        finally:
            kill_group(proxy.process)

    return open_proxy
