"""What is sent to the cluster: this code, the job's config and a start script, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGED_SUFFIXES = frozenset({".py", ".j2", ".css", ".js"})
"""Whatever else lies beside the code (notes, data, a file of credentials) stays here."""
CONFIG_NAME = "stylemill-job.yaml"
START_NAME = "stylemill-start.sh"

# An entrypoint's `python` is whatever PATH finds there, often none, often another than Ray's own. The interpreter that
# runs Ray's workers stands in the command line of the machine's raylet, whose process id the parent of this shell
# (the job's supervisor, a worker) has in its environment.
START_SCRIPT = """\
raylet=$(tr '\\0' '\\n' <"/proc/$PPID/environ" | sed -n 's/^RAY_RAYLET_PID=//p') 2>/dev/null
python=$(tr '\\0' '\\n' <"/proc/$raylet/cmdline" | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p') 2>/dev/null
exec "${STYLEMILL_PYTHON:-${python:-python3}}" -m jobs.cli "$@"
"""


def entrypoint(verb: str) -> str:
    """Return the shell command that runs a verb in an unpacked package."""
    return f"exec sh ./{START_NAME} {verb} --config {CONFIG_NAME}"


@contextmanager
def staged_package(config_yaml: str, *, with_code: bool) -> Iterator[Path]:
    """Yield a folder to be sent; it is gone after the block.

    Args:
        config_yaml: the job's config.
        with_code: also put this installation's packages there.
    """
    with TemporaryDirectory(prefix="stylemill-submit-") as name:
        folder = Path(name)
        if with_code:
            for package in code_folders():
                _copy_code(package, folder / package.name)
        (folder / CONFIG_NAME).write_text(config_yaml, encoding="utf-8")
        (folder / START_NAME).write_text(START_SCRIPT, encoding="utf-8")
        yield folder


def code_folders() -> list[Path]:
    """Return the folders of the packages that a job needs."""
    here = Path(__file__).resolve().parents[2]
    return [here / "jobs", here / "pipeline"]


def _copy_code(source: Path, target: Path) -> None:
    for folder, subfolders, files in os.walk(source):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__"))]
        for name in files:
            if Path(name).suffix in PACKAGED_SUFFIXES and not name.startswith("."):
                copy = target / Path(folder).relative_to(source) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(folder) / name, copy)
