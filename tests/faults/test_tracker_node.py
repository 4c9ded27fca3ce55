"""The trackers of runs live on the driver's node: the loss of any other machine does not reset what they count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.processes import Helper, environment, kill_everything

SCRIPT = """
import ray
from stylemill.stylizing import ray_tracker
from stylemill.training import tracker

ray.init(log_to_driver=False)
here = ray.get_runtime_context().get_node_id()
others = {node["NodeID"] for node in ray.nodes()} - {here}
trackers = [start() for start in (ray_tracker.start_tracker, tracker.start_tracker) for _ in range(4)]
where = [one.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()) for one in trackers]
print(len(others), set(ray.get(where)) == {here})
"""


@pytest.fixture
def address() -> Iterator[str]:
    cluster = Helper("tests.faults.nodes")
    yield cluster.greeting
    kill_everything(cluster.process)


def test_trackers_live_on_the_driver_s_node(address: str):
    command, variables = [sys.executable, "-c", SCRIPT], environment(RAY_ADDRESS=address)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout.splitlines()[-1:] == ["2 True"], done.stdout + done.stderr
