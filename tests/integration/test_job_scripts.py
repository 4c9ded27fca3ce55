"""The scripts of jobs/ with their examples, as the entry points of plain `ray job submit`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stylemill.manifest.read import find_run, read_manifest
from stylemill.storage import Storage
from stylemill.style_model import load_style_model
from tests.clusters import Cluster
from tests.drawn import image_bytes
from tests.integration.conftest import fill
from tests.processes import ROOT

SMALL = {
    "train": {"steps": 2, "width": 0.125, "crop_px": 64, "style_size_px": 64, "cpus_per_worker": 1},
    "stylize": {"num_actors": 1},
    "evaluate": {"num_images": 2, "size_px": 64, "style_size_px": 64},
    "retrain": {"steps": 2, "width": 0.125, "crop_px": 64, "style_size_px": 64, "cpus_per_worker": 1, "size_px": 64},
}
"""What makes the examples end within seconds on two CPUs."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user uploads: jobs/ and the package, the examples with locations of this machine, small ones."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("jobs", "pipeline"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                fill(folder, {str(path.relative_to(ROOT)): path.read_bytes()})
    place = folder / "bucket"
    photos = {f"{number}.jpg": image_bytes(90, 130, seed=number) for number in range(8)}
    fill(place / "photos" / "incoming", photos)
    fill(place / "photos" / "holdout", photos)
    fill(place / "styles", {"wave.jpg": image_bytes(80, 96, seed=50)})
    for verb, changes in SMALL.items():
        path = folder / "jobs" / "examples" / f"{verb}.yaml"
        # Scalars stay strings, as in stylemill: YAML itself reads 1:4 as a number of base 60.
        settings = yaml.load(path.read_text().replace("s3://CHANGE-ME", str(place)), yaml.BaseLoader)  # noqa: S506
        assert set(changes) - {"width", "crop_px", "style_size_px", "size_px"} <= settings.keys()
        path.write_text(yaml.safe_dump(settings | changes))
    # The version tells which code has run: this one, and not the one that is installed on the machines.
    (folder / "pipeline" / "stylemill" / "__init__.py").write_text('__version__ = "0.0.uploaded"\n')
    return folder


def test_every_script_has_an_example_and_every_example_a_script():
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    examples = {path.stem for path in (ROOT / "jobs" / "examples").glob("*.yaml")}
    assert scripts == set(SMALL) and examples == scripts | {"runtime-env"}


@pytest.mark.slow
def test_the_scripts_run_as_entry_points_of_ray_jobs(head: Cluster, checkout: Path):
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.address]
    submit += ["--runtime-env", "jobs/examples/runtime-env.yaml", "--working-dir", ".", "--"]
    steps = ([sys.executable, f"jobs/{verb}.py", "--config", f"jobs/examples/{verb}.yaml"] for verb in SMALL)
    script = " && ".join(map(shlex.join, steps))
    done = subprocess.run(
        [*submit, "sh", "-c", script],
        cwd=checkout,
        env={**os.environ, **head.environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place, storage = checkout / "bucket", Storage()
    model = load_style_model(storage, str(place / "styles" / "wave" / "style.safetensors"))
    assert model.metadata["stylemill"] == "0.0.uploaded"
    rows = read_manifest(storage, find_run(storage, str(place / "repainted")))
    assert rows.num_rows == 16 and set(rows["status"].to_pylist()) == {"ok"}
    assert (place / "evaluations" / "wave" / "report" / "index.html").exists()
    assert list((place / "registry").rglob("*.safetensors"))
