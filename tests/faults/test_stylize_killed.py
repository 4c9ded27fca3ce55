"""Processes of a bulk run are killed; what stands in the end is what an undisturbed run would have left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stylemill.auditing.verify import verify
from stylemill.images.decode import decode
from stylemill.images.encode import encode
from stylemill.images.options import DecodeOptions, EncodeOptions
from stylemill.manifest.read import find_run, read_manifest
from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import resolve_precision
from stylemill.storage import Storage, StorageOptions
from stylemill.storage.local import TEMPORARY_PREFIX
from stylemill.style_model import StyleModel, to_bytes
from tests.drawn import image_bytes, style_model
from tests.processes import PATIENCE_S, start_stylemill, wait_for, workers

pytestmark = pytest.mark.smoke

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def style() -> StyleModel:
    return style_model("slow", width=0.5)


@pytest.fixture
def start(style: StyleModel, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts ``stylemill stylize`` over tmp_path/in with a cluster of its own."""
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style))
    started: list[subprocess.Popen[str]] = []

    def begin(*more: str) -> subprocess.Popen[str]:
        words = ["--model", "style.safetensors", "--input", "in", "--out", "out", "--runner", "ray", *more]
        started.append(start_stylemill("stylize", *words, cwd=tmp_path, stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run that must end well and return what it printed."""
    printed, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complaints
    return printed


def draw_library(folder: Path, count: int, side_px: int = 120) -> dict[str, bytes]:
    files = {f"{number:02d}.jpg": image_bytes(side_px + number, side_px, number) for number in range(count)}
    folder.mkdir()
    for key, data in files.items():
        (folder / key).write_bytes(data)
    return files


def painted_directly(style: StyleModel, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return what an undisturbed loop in this process makes of pictures."""
    fast = FastNet(style.build_network(), precision=resolve_precision("auto", "cpu"))
    made = {}
    for key, data in files.items():
        source = decode(data, DecodeOptions())
        made[key] = encode(fast.stylize(source.image_HWC), source, EncodeOptions()).data
    return made


def images_of(out: Path) -> dict[str, bytes]:
    """Return the results; a killed writer leaves the file that it was at, under a name that no listing shows."""
    paths = (path for path in (out / "images" / "slow").glob("*") if not path.name.startswith(TEMPORARY_PREFIX))
    return {path.name: path.read_bytes() for path in paths}


def check_outcome(out: Path, style: StyleModel, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Check that a run is whole and sound and return its rows."""
    layout = find_run(Storage(), str(out))
    found = verify(StorageOptions(), layout)
    assert found.is_sound, found.problems
    rows: list[dict[str, Any]] = read_manifest(Storage(), layout).to_pylist()
    assert [row["key"] for row in rows] == sorted(files)
    wanted = painted_directly(style, {row["key"]: files[row["key"]] for row in rows if row["output_uri"]})
    check_same_images(images_of(out), wanted, out.parent / "differing")
    return rows


def check_same_images(painted: dict[str, bytes], wanted: dict[str, bytes], differing: Path) -> None:
    """Check that images are the same files; otherwise save the pairs that are not, and say by how much."""
    assert painted.keys() == wanted.keys()
    differing.mkdir(exist_ok=True)
    levels = {}
    for key in [key for key, data in painted.items() if data != wanted[key]]:
        for name, data in ("painted", painted[key]), ("wanted", wanted[key]):
            (differing / f"{name}-{key}").write_bytes(data)
        pair = [decode(data, DecodeOptions()).image_HWC.astype(int) for data in (painted[key], wanted[key])]
        levels[key] = (pair[0].shape, pair[1].shape) if pair[0].shape != pair[1].shape else abs(pair[0] - pair[1]).max()
    assert not levels, f"levels between painted and wanted, of {len(painted)} images; see {differing}"


def test_the_driver_is_killed_and_the_same_command_goes_on(start: Start, style: StyleModel, tmp_path: Path):
    files, out = draw_library(tmp_path / "in", 48), tmp_path / "out"
    process = start()
    wait_for("rows were flushed", process, lambda: [*out.glob("runs/*/pending/shard-000000/*.parquet")])
    process.kill()
    process.communicate()
    assert not list(out.glob("manifests/*/_SUCCESS"))
    wait_for_silence(out)
    num_before = len(images_of(out))
    assert 0 < num_before < len(files)
    printed = finish(start())
    assert "resumed: " in printed
    rows = check_outcome(out, style, files)
    assert all(row["status"] == "ok" for row in rows)


@pytest.mark.slow
def test_a_driver_that_is_told_to_end_gives_the_run_back(start: Start, style: StyleModel, tmp_path: Path):
    files, out = draw_library(tmp_path / "in", 48), tmp_path / "out"
    process = start()
    wait_for("rows were flushed", process, lambda: [*out.glob("runs/*/pending/shard-000000/*.parquet")])
    process.terminate()
    _, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, complaints
    assert complaints.endswith("stylemill: interrupted; the same command resumes\n")
    (lease,) = out.glob("runs/*/lease/*.json")
    assert json.loads(lease.read_text())["released"]  # nobody has to wait until it counts as dead
    assert "resumed: " in finish(start())
    check_outcome(out, style, files)


def wait_for_silence(out: Path) -> None:
    """Wait until the workers of a killed driver have gone, too, and write no more."""
    before, quiet_s = -1, 0.0
    while quiet_s < 1.5:
        time.sleep(0.25)
        now = sum(path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file())
        before, quiet_s = now, quiet_s + 0.25 if now == before else 0.0


@pytest.mark.slow
def test_an_actor_is_killed_and_the_run_completes(start: Start, style: StyleModel, tmp_path: Path):
    files, out = draw_library(tmp_path / "in", 40), tmp_path / "out"
    process = start("--num-actors", "1")
    wait_for("images were painted", process, lambda: len(images_of(out)) >= 3)
    victims = set(workers(process.pid, "BulkActor"))
    assert len(victims) == 1
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    finish(process)
    rows = check_outcome(out, style, files)
    assert all(row["status"] == "ok" for row in rows)


@pytest.mark.slow
def test_an_image_whose_worker_dies_twice_is_given_up_alone(start: Start, style: StyleModel, tmp_path: Path):
    files, out = draw_library(tmp_path / "in", 11), tmp_path / "out"
    # The poison takes long enough to be caught in the act; it stands last in the first block of three.
    files["01a-poison.jpg"] = image_bytes(1600, 1600)
    (tmp_path / "in" / "01a-poison.jpg").write_bytes(files["01a-poison.jpg"])
    before_it = out / "images" / "slow" / "01.jpg"
    process = start("--num-actors", "1", "--max-failed-fraction", "1")
    dead = set[int]()
    for _ in range(2):
        wait_for("the poison's turn", process, before_it.exists)
        time.sleep(0.3)
        (victim,) = set(workers(process.pid, "BulkActor")) - dead
        dead.add(victim)
        os.kill(victim, signal.SIGKILL)
        before_it.unlink()  # its row was not flushed; the next worker creates it anew
    printed = finish(process)
    assert "1 x WorkerDied" in printed
    rows = {row["key"]: row for row in check_outcome(out, style, files)}
    assert {key for key, row in rows.items() if row["status"] != "ok"} == {"01a-poison.jpg"}
    assert rows["01a-poison.jpg"]["attempt"] == 3 and "died 2 times" in rows["01a-poison.jpg"]["error"]
