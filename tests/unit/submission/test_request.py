"""Job requests: resolved locations, attempts, and the package with the start script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylemill.submission.request import (
    CONFIG_NAME,
    START_NAME,
    Attempt,
    _copy_code,
    choose_attempt,
    code_folder,
    entrypoint,
    resolve_locations,
    staged_package,
)
from stylemill.training.config import TrainConfig

ROOT = Path(__file__).parents[3]


def test_resolving_skips_fields_without_a_value():
    config = TrainConfig(style_image="s3://b/a", content=("s3://b/c/", "s3://b/d"), out="s3://b/o")
    resolved = resolve_locations(
        config, ("style_image", "content", "out", "start", "loss_weights"), shared_filesystem=False
    )
    assert (resolved.start, resolved.loss_weights) == ("builtin", "auto")
    assert resolved.content == ("s3://b/c", "s3://b/d")


@pytest.mark.parametrize(
    ("jobs", "is_repeatable", "expected"),
    [
        ({}, False, Attempt(id="job")),
        ({"job-of-another": "active", "xjob": "active", "job-2x": "active"}, False, Attempt(id="job")),
        ({"job": "active"}, True, Attempt(id="job", is_running=True)),
        ({"job": "ended"}, False, Attempt(id="job-2", earlier="job")),
        ({"job": "done"}, False, Attempt(id="job", is_done=True)),
        ({"job": "done"}, True, Attempt(id="job-2", earlier="job")),
        ({"job-2": "active", "job": "ended"}, False, Attempt(id="job-2", is_running=True)),
        ({"job-10": "ended", "job-9": "ended"}, False, Attempt(id="job-11", earlier="job-10")),
        ({"job-2": "done", "job": "ended"}, False, Attempt(id="job-2", is_done=True)),
    ],
)
def test_attempts(jobs: dict[str, str], is_repeatable: bool, expected: Attempt):
    assert choose_attempt("job", jobs, is_repeatable=is_repeatable) == expected


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_package_holds_the_code_and_the_config_alone():
    listed = subprocess.run(
        ["git", "ls-files", "stylemill"], cwd=ROOT / "pipeline", capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("needs a git checkout, which says what the code is")
    with staged_package("quality: 7\n", with_code=True) as folder:
        # What was compiled from it is found in the installation there.
        left_out = {"stylemill/py.typed", "stylemill/nn/cpu/kernels.c"}
        assert files_below(folder) >= set(listed.stdout.split()) - left_out | {CONFIG_NAME, START_NAME}
        assert (folder / CONFIG_NAME).read_text() == "quality: 7\n"
        assert not [name for name in files_below(folder) if "__pycache__" in name or name.endswith(".pyc")]
    assert not folder.exists()


def test_files_next_to_the_code_are_not_packed(tmp_path: Path):
    for name in (".env", "credentials.json", "a.py", ".hidden.py", "deep/b.py", "deep/key.pem", "__pycache__/c.py"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hunter2")
    _copy_code(tmp_path / "source", tmp_path / "target")
    assert files_below(tmp_path / "target") == {"a.py", "deep/b.py"}


def test_without_the_code_only_the_config_is_packed():
    with staged_package("a: b\n", with_code=False) as folder:
        assert files_below(folder) == {CONFIG_NAME, START_NAME}


def test_equal_packages_have_equal_content(tmp_path: Path):
    with staged_package("a: b\n", with_code=True) as one, staged_package("a: b\n", with_code=True) as other:
        assert files_below(one) == files_below(other)
        assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files_below(one))


def test_the_code_is_this_one():
    assert code_folder() == ROOT / "pipeline" / "stylemill"


RAYLET = "import sys, time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def raylet_pid(tmp_path: Path):
    """A process whose command line names this interpreter as a raylet's does."""
    command = f"--python_worker_command={sys.executable} /x/setup_worker.py /x/default_worker.py --port=0"
    process = subprocess.Popen([sys.executable, "-c", RAYLET, command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


def run_entrypoint(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an entrypoint as Ray's supervisor does: a shell below a process that knows its raylet."""
    supervisor = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1], shell=True, cwd=sys.argv[2]))"
    (folder / "stylemill").mkdir()
    (folder / "stylemill" / "__init__.py").touch()
    (folder / "stylemill" / "__main__.py").write_text("import sys; print(sys.executable, sys.argv[1:]); sys.exit(3)")
    return subprocess.run(
        [sys.executable, "-c", supervisor, entrypoint("manifest verify"), str(folder)],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_job_runs_on_the_interpreter_of_rays_workers(raylet_pid: int):
    with staged_package("a: b\n", with_code=False) as folder:
        done = run_entrypoint(folder, RAY_RAYLET_PID=str(raylet_pid))
    assert done.stdout == f"{sys.executable} ['manifest', 'verify', '--config', '{CONFIG_NAME}']\n", done.stderr
    assert (done.returncode, done.stderr) == (3, "")


def test_without_a_raylet_a_job_runs_on_what_there_is():
    with staged_package("a: b\n", with_code=False) as folder:
        done = run_entrypoint(folder, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert done.returncode == 3 and "python" in done.stdout and not done.stderr
