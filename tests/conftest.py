"""What the tests of several folders share: a style to paint with, and the command line as users call it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# The same examples every time, and no verdict about how fast a busy machine is.
settings.register_profile("stylemill", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stylemill")

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style model on disk: narrow, with seeded random weights."""
    from pipeline.style_model import to_bytes
    from tests.drawn import style_model

    path = tmp_path_factory.mktemp("style") / "style.safetensors"
    path.write_bytes(to_bytes(style_model()))
    return path


@pytest.fixture(scope="session")
def second_style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another style, of another name."""
    from pipeline.style_model import to_bytes
    from tests.drawn import style_model

    path = tmp_path_factory.mktemp("style") / "second.safetensors"
    path.write_bytes(to_bytes(style_model("dunes", seed=1)))
    return path


@pytest.fixture(scope="session")
def stylemill() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return the command line as a function: a process of its own for each call, output captured."""

    def run(
        *arguments: object, cwd: Path | None = None, bound_by_permissions: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            preexec_fn=_give_up_overrides if bound_by_permissions and os.geteuid() == 0 else None,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def run_bound_by_permissions() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python code in a process to which file permissions apply, root or not."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=_give_up_overrides if os.geteuid() == 0 else None,
            timeout=60,
            check=False,
        )

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is fast first, and what shares a Ray cluster last, so that nothing else meets that cluster."""
    order = ["unit", "tools", "faults", "gpu", "integration"]

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT / "tests").parts
        return order.index(parts[0]) if parts[0] in order else 0

    items.sort(key=place)


def command_line(*arguments: object) -> list[str]:
    """Return the words of one call of ``stylemill`` in this environment's Python."""
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


def _give_up_overrides() -> None:
    """Make file permissions hold for root too: drop two capabilities of what is executed next (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
