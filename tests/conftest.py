"""What the tests of several folders share: a style to paint with, S3, and the command line as users call it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.processes import ROOT, command_line, environment

S3_SERVER = ROOT / "tests" / "tools" / "s3-server"

NO_S3_SERVICE = "needs the S3 service: run `make .venv-s3/.installed` and set SWIFT_VENV to that folder"

# The same examples every time, and no verdict about how fast a busy machine is.
settings.register_profile("stylemill", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stylemill")

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style model on disk: narrow, with seeded random weights."""
    from stylemill.style_model import to_bytes
    from tests.drawn import style_model

    path = tmp_path_factory.mktemp("style") / "style.safetensors"
    path.write_bytes(to_bytes(style_model()))
    return path


@pytest.fixture(scope="session")
def second_style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another style, of another name."""
    from stylemill.style_model import to_bytes
    from tests.drawn import style_model

    path = tmp_path_factory.mktemp("style") / "second.safetensors"
    path.write_bytes(to_bytes(style_model("dunes", seed=1)))
    return path


@pytest.fixture(scope="session")
def stylemill() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return the command line as a function: a process of its own for each call, output captured."""

    def run(
        *arguments: object, cwd: Path | None = None, bound_by_permissions: bool = False, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment(**variables),
            preexec_fn=_give_up_overrides if bound_by_permissions and os.geteuid() == 0 else None,
            timeout=420,
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
            env=environment(),
            preexec_fn=_give_up_overrides if os.geteuid() == 0 else None,
            timeout=180,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def s3_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 service on loopback, one for all tests: the environment that leads to it. Skips visibly without it."""
    venv = Path(os.environ.get("SWIFT_VENV", ROOT / ".venv-s3"))
    if not (venv / "bin" / "swift-proxy-server").exists():
        pytest.skip(NO_S3_SERVICE)
    folder = tmp_path_factory.mktemp("s3")
    # A secret that stands nowhere else, so that a test can look for it.
    environment = {**os.environ, "SWIFT_VENV": str(venv), "S3_SERIAL": "1", "S3_SECRET": "hunter2-planted-for-s3"}
    command = [sys.executable, str(S3_SERVER), "start", str(folder), "0"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.fail(started.stderr)
    said = dict(line.split("=", 1) for line in started.stdout.split())
    yield {
        "AWS_ENDPOINT_URL": said["endpoint"],
        "AWS_ACCESS_KEY_ID": said["access_key"],
        "AWS_SECRET_ACCESS_KEY": said["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    subprocess.run([sys.executable, str(S3_SERVER), "stop", str(folder)], env=environment, check=True)


@pytest.fixture
def s3_bucket(s3_service: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket as a location; this process's environment leads to it."""
    import botocore.session

    for name, value in s3_service.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    botocore.session.get_session().create_client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is fast first, and what shares a Ray cluster last, so that nothing else meets that cluster."""
    order = ["unit", "tools", "faults", "gpu", "integration"]

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT / "tests").parts
        return order.index(parts[0]) if parts[0] in order else 0

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell of a failure when it happens: of a session that is cut off, nothing else would remain."""
    if report.failed:
        sys.__stderr__.write(f"\n{report.nodeid} failed at {report.when}\n{report.longreprtext}\n")
        sys.__stderr__.flush()


def _give_up_overrides() -> None:
    """Make file permissions hold for root too: drop two capabilities of what is executed next (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
