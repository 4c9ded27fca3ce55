"""Ctrl-C in real processes: one line, exit code 130, one JSON object, and nothing half-written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawn import image_bytes
from tests.integration.conftest import fill
from tests.processes import Job, start_stylemill, wait_for

LINE = "stylemill: interrupted; the same command resumes"


def interrupt(job: Job) -> None:
    """Send what Ctrl-C sends: SIGINT to the whole process group of the terminal."""
    os.killpg(job.pid, signal.SIGINT)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let children be interrupted also if the tests themselves run in the background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return fill(tmp_path / "in", {f"{number}.jpg": image_bytes(200, 300, number % 8) for number in range(400)})


def check_interrupted(job: Job, is_under_way: Callable[[], bool], log: Path) -> None:
    wait_for("work", job, is_under_way)
    interrupt(job)
    stdout, _ = job.communicate()
    said = log.read_text()
    assert job.returncode == 128 + signal.SIGINT, said
    assert said.splitlines()[-1] == LINE and said.count(LINE) == 1 and "Traceback" not in said
    assert json.loads(stdout)["error"]["type"] == "KeyboardInterrupt"


def test_stylize(style_file: Path, library: Path, tmp_path: Path):
    log, out = tmp_path / "log", tmp_path / "out"
    with log.open("w") as stderr:
        job = start_stylemill(
            *("stylize", "--model", style_file, "--input", library, "--out", out, "--json"), stderr=stderr
        )
    check_interrupted(job, lambda: any(out.glob("images/*/*.jpg")), log)
    assert not list(out.glob("manifests/*/_SUCCESS"))
    assert all(path.suffix == ".jpg" for path in out.glob("images/*/*"))


def test_train(library: Path, tmp_path: Path):
    log, out = tmp_path / "log", tmp_path / "out"
    flags = ("--loss-network", "pyramid", "--crop-px", 64, "--width", 0.25, "--steps", 5000, "--batch-size", 1)
    with log.open("w") as stderr:
        job = start_stylemill(
            *("train", "--style-image", library / "0.jpg", "--content", library, "--out", out, *flags, "--json"),
            stderr=stderr,
        )
    check_interrupted(job, lambda: "progress: step" in log.read_text(), log)
    assert not (out / "style.safetensors").exists()
