"""The tutorials: every cell runs, and the outputs that are stored are what it gives now."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, environment

NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_pictures_are_small_and_no_cell_is_without_its_run(notebook: Path):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    pictures = [output["data"]["image/jpeg"] for cell in cells for output in cell["outputs"] if is_picture(output)]
    assert pictures
    assert all(len(picture) * 3 / 4 < 150_000 for picture in pictures)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_gives_what_is_stored(notebook: Path, tmp_path: Path):
    copy = tmp_path / notebook.name
    shutil.copy(notebook, copy)
    command = [sys.executable, str(ROOT / "docs/_build/notebook.py"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=420)
    assert done.returncode == 0, done.stderr
    for now, before in zip(code_cells(copy), code_cells(notebook), strict=True):
        assert [kinds(output) for output in now["outputs"]] == [kinds(output) for output in before["outputs"]]


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def is_picture(output: dict[str, Any]) -> bool:
    return "image/jpeg" in output.get("data", {})


def kinds(output: dict[str, Any]) -> list[str]:
    """Return the media types of an output; for a short text the text itself, which does not depend on the machine."""
    texts = output.get("data", {}).get("text/plain", [])
    return sorted(output.get("data", {"stream": None})) + (texts if len(texts) == 1 else [])
