"""The examples: each one's own functions, on small pictures, a shared cluster and the S3 service."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.processes import ROOT, environment


def example(name: str) -> ModuleType:
    """Import the script of an example."""
    (path,) = (ROOT / "examples" / name).glob("*.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where pickle looks its classes up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_folder_on_s3(s3_service: dict[str, str], tmp_path: Path):
    script = ROOT / "examples/s3_folder/repaint.py"
    # The shared cluster has no credentials; without an address of its own, Ray would look for a cluster and find it.
    variables = environment(RAY_ADDRESS="local")
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=variables, cwd=tmp_path, check=False, timeout=420
    )
    assert done.returncode == 0, done.stderr
    first, later = done.stdout.split("one more photo arrives")
    assert "'ok': 3" in first and "3 objects verified, 0 problems" in first
    assert "rocket.jpg" in later and "coffee.jpg" not in later
    assert "1 objects verified, 0 problems" in later
    assert (tmp_path / "painted.jpg").exists()


@pytest.mark.slow
def test_training_data_in_random_styles(
    local_ray: str,
    style_file: Path,
    second_style_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    import pyarrow.parquet as pq
    import ray.cloudpickle

    script = example("stylised_training_data")
    ray.cloudpickle.register_pickle_by_value(script)  # workers cannot import a script
    monkeypatch.chdir(tmp_path)
    script.write_samples(Path("classes"))
    models = [str(style_file), str(second_style_file)]
    script.main(["classes", "made", *models])

    rows = pq.read_table("made").to_pylist()
    assert len(rows) == 32
    assert len({row["style"] for row in rows}) == 2
    for row in rows:
        photo = script.decode({"path": f"classes/{row['key']}", "bytes": Path("classes", row["key"]).read_bytes()})
        assert row["label"] == photo["label"] and row["error"] is None
        assert np.array(row["painted"]).shape == photo["image"].shape
        assert not np.array_equal(np.array(row["painted"]), photo["image"])
    assert Path("made.jpg").exists()


@pytest.mark.slow
@pytest.mark.long
def test_nights_of_retraining(tmp_path: Path):
    script = ROOT / "examples/nightly_retraining/nights.py"
    command = [sys.executable, str(script), str(tmp_path), "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(path.read_text()) for path in (tmp_path / "retraining/outcomes").glob("*.json")]
    assert len(outcomes) == 2  # nothing was new on the second night
    first, last = sorted(outcomes, key=lambda one: one["decided_at"])
    assert first["decision"] == "promoted"
    assert last["decision"] in ("promoted", "kept")
    assert f"in use: waves@{last['champion']}" in done.stdout
