"""What `pip install stylemill` gives: one import package, and jobs that run whatever lies in the user's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stylemill.storage import Storage
from stylemill.style_file import load_style_header
from tests.drawn import image_bytes
from tests.integration.conftest import fill
from tests.processes import ROOT

NEEDED = (
    "constraints.txt", "Makefile", "docs/manifest.md", "infra/image/Dockerfile", "jobs/examples/train.yaml",
    "pipeline/stylemill/py.typed", "pipeline/stylemill/report/templates/page.css", "tests/conftest.py",
    "tests/infra/kuberay-1.7.0.json", "tests/tools/s3-server", "benchmarks/bulk.py",
)  # fmt: skip
"""Files without which the wheel, the tests or the image cannot be built from the source distribution."""


def checked(command: list[str], **options: Any) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=420, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of this checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout, which lists the project's files")
    checkout, built = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    fill(checkout, {name: (ROOT / name).read_bytes() for name in names})
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(built)!r}))"
    archive = built / checked([sys.executable, "-c", code], cwd=checkout).splitlines()[-1]
    with tarfile.open(archive) as packed:
        packed.extractall(built, filter="data")
    return built / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed that the source distribution builds; its dependencies are not."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    checked([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(sdist)])
    [wheel] = wheels.glob("*.whl")
    checked([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)])
    return target


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder that holds pictures, and modules with everyday names which must not be imported."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("pipeline.py", "jobs/__init__.py", "config.py", "storage/__init__.py", "cli.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise AssertionError('{name} of the working directory was imported')\n")
    (folder / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    fill(folder / "photos", {f"{seed}.jpg": image_bytes(90, 130, seed=seed) for seed in range(4)})
    return folder


def test_the_wheel_carries_the_compiled_kernels(installed: Path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    assert list((installed / "stylemill" / "nn" / "cpu").glob("_kernels*"))


def test_the_sdist_holds_what_tests_and_image_need(sdist: Path):
    assert [name for name in NEEDED if not (sdist / name).is_file()] == []


def test_the_wheel_installs_one_import_package(installed: Path):
    names = {path.name for path in installed.iterdir()} - {"bin", "__pycache__"}
    assert {name for name in names if not name.endswith(".dist-info")} == {"stylemill"}
    assert (installed / "stylemill" / "py.typed").exists()


@pytest.mark.slow
def test_jobs_run_from_the_wheel_in_a_folder_of_everyday_names(installed: Path, hostile: Path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("RAY_ADDRESS", None)

    def stylemill(*words: object) -> str:
        command = [sys.executable, "-m", "stylemill", *map(str, words)]
        return checked(command, cwd=hostile, env=environment)

    where = checked([sys.executable, "-c", "import stylemill; print(stylemill.__file__)"], cwd=hostile, env=environment)
    assert Path(where.strip()).parent == installed / "stylemill"
    stylemill(
        *("train", "--style-image", "style.png", "--content", "photos", "--out", "trained", "--steps", 2),
        *("--width", 0.125, "--crop-px", 64, "--style-size-px", 64, "--loss-network", "pyramid"),
    )
    assert load_style_header(Storage(), str(hostile / "trained" / "style.safetensors")).name == "style"
    said = stylemill("stylize", "--model", "trained/style.safetensors", "--input", "photos", "--out", "painted")
    assert "4 ok" in said
    assert len(list((hostile / "painted" / "images" / "style").iterdir())) == 4
