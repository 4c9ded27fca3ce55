"""A Ray cluster that all integration tests share, and libraries to paint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster, cluster
from tests.drawn import image_bytes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """A cluster of two CPUs on this machine, to which this process is connected: its address."""
    import ray
    from ray.data import DataContext

    os.environ["RAY_AUTH_MODE"] = "disabled"
    context = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        _memory=8 * 2**30,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().print_on_execution_start = False
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head with two CPUs and token authentication."""
    with cluster(isolated=False, machine_environment={"RAY_metrics_report_interval_ms": "1000"}) as made:
        made.start_head(num_cpus=2)
        yield made


Files = dict[str, bytes]

MIXED: Files = {
    "a.jpg": image_bytes(48, 64, 1),
    "a.png": image_bytes(21, 90, 2, "PNG"),
    "deep/er/b.jpg": image_bytes(33, 47, 3),
    "deep/er/b.webp": image_bytes(40, 40, 4, "WEBP"),
    "deep/tiff.tif": image_bytes(30, 31, 5, "TIFF"),
    "with space/é 日本 💡.png": image_bytes(17, 18, 6, "PNG"),
    "line\nbreak.jpg": image_bytes(50, 20, 7),
    "%2e%2e/percent%20.jpg": image_bytes(20, 20, 8),
    "no suffix": image_bytes(64, 64, 9),
    "lies.txt": image_bytes(25, 26, 10, "PNG"),
    "tiny.png": image_bytes(3, 2, 11, "PNG"),
    "corrupt.jpg": image_bytes(60, 60, 12)[:300],
    "notes.txt": b"Shot on a rainy Sunday.\n" * 20,
    "empty.jpg": b"",
}
"""A small library of everything: sizes, formats, names; the last three cannot be painted."""

NOT_PAINTED = {"corrupt.jpg": "failed", "notes.txt": "skipped", "empty.jpg": "failed"}


@pytest.fixture(scope="session")
def mixed_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MIXED as files; tests must not change it."""
    return fill(tmp_path_factory.mktemp("library") / "in", MIXED)


def fill(folder: Path, files: Files) -> Path:
    """Write files into a folder."""
    for key, data in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return modification time and content of each file below a folder by its key."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder by its key."""
    return {key: data for key, (_, data) in state_of(folder).items()}


both_runners = pytest.mark.parametrize("runner", ["ray", "local"])
"""For tests of what a run promises, which must hold however its workers run."""


@pytest.fixture
def runner() -> str:
    """What runs the workers: local, which starts sooner, where a test does not ask for ``both_runners``."""
    return "local"


@pytest.fixture
def paint(request: pytest.FixtureRequest, runner: str, style_file: Path) -> Callable[..., Any]:
    """Return a function that paints a library as ``stylemill stylize`` does; with Ray on the shared cluster.

    Uses one worker by default: a second one takes longer to start than it saves.
    """
    from stylemill.config import from_mapping
    from stylemill.stylizing.config import StylizeConfig
    from stylemill.stylizing.preflight import prepare
    from stylemill.stylizing.run import stylize

    def run(source: object, out: object, **changes: Any) -> Any:
        fields = {"model": str(style_file), "input": str(source), "out": str(out), "num_actors": 1, "runner": runner}
        config = from_mapping(StylizeConfig, {**fields, **changes})
        if config.runner == "ray":
            request.getfixturevalue("local_ray")
        return stylize(prepare(config))

    return run


def rows_of(result: Any, storage: Any = None) -> list[dict[str, Any]]:
    """Return the committed rows of a run."""
    from stylemill.manifest.read import read_manifest
    from stylemill.storage import Storage

    rows: list[dict[str, Any]] = read_manifest(storage or Storage(), result.layout).to_pylist()
    return rows
