"""Errors of actors are raised unwrapped, as one line."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from stylemill.errors import ConfigError, PathConflict, RunConflict
from stylemill.storage import Storage
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.environment import codec_versions
from stylemill.stylizing.preflight import PreparedRun, prepare
from stylemill.stylizing.run import stylize
from tests.drawn import image_bytes
from tests.integration.conftest import fill


@pytest.fixture(params=["ray", "local"])
def run(request: pytest.FixtureRequest, local_ray: str, style_file: Path, tmp_path: Path) -> PreparedRun:
    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 30), "b.jpg": image_bytes(30, 20)})
    return prepare(
        StylizeConfig(model=(str(style_file),), input=str(library), out=str(tmp_path / "out"), runner=request.param)
    )


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """Keep objects in reference cycles: in a process that waits, the garbage collector may run late or never."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
def test_a_fault_of_the_store(run: PreparedRun):
    free_before = ray.available_resources()["CPU"]
    Storage().write_bytes(run.layout.pending_uri, b"a file where a folder is needed")
    with pytest.raises(PathConflict) as caught:
        stylize(run)
    assert type(caught.value) is PathConflict
    assert "Ray" not in str(caught.value) and "\n" not in str(caught.value)
    # The error is still held, as a notebook would; the actors are not.
    deadline_s = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < free_before:
        assert time.monotonic() < deadline_s, "an actor of the failed run still holds a CPU"
        time.sleep(0.2)


def test_a_model_that_was_exchanged(run: PreparedRun, second_style_file: Path):
    Storage().write_bytes(run.layout.model_uri("waves"), second_style_file.read_bytes())
    with pytest.raises(ConfigError, match="is not the model that this run was planned with") as caught:
        stylize(run)
    assert "\n" not in str(caught.value)


def test_an_upgrade_between_kill_and_resume(run: PreparedRun):
    earlier = {**codec_versions(), "pillow": "1.1.7"}
    Storage().write_bytes(run.layout.environment_uri("codecs"), json.dumps(earlier).encode())
    with pytest.raises(ConfigError, match=r"began with other versions: pillow 1\.1\.7 -> ") as caught:
        stylize(run)
    assert "\n" not in str(caught.value)


def test_a_run_that_another_process_takes_over(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    holder = {"host": "elsewhere", "pid": 7, "process_started": "", "nonce": "", "since": "noon"}

    def take_over(_: object) -> None:
        Storage().create_bytes(f"{run.layout.lease_uri}/00000002.json", json.dumps(holder).encode())

    monkeypatch.setattr("stylemill.stylizing.run.PROGRESS_PERIOD_S", 0.01)
    with pytest.raises(RunConflict, match="taken over by process 7 on elsewhere since noon") as caught:
        stylize(run, on_progress=take_over)
    assert type(caught.value) is RunConflict
    assert not Storage().exists(run.layout.success_uri)
