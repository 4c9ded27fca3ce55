"""Training on a cluster of two machines of which one dies, with and without notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.training_jobs import complete_checkpoints, resumed_at, start_training, wait_for_checkpoint
from tests.processes import Helper, Job, finish, kill_everything, wait_for, workers
from tests.training_runs import assert_same_run, rows_of

STEPS = 250
QUICK = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""How soon Ray Train notices things; its own defaults are made for hours of training."""

pytestmark = [pytest.mark.slow, pytest.mark.long]


class Nodes(Helper):
    """The cluster as a process that takes orders (see ``tests.faults.nodes``)."""

    def __init__(self) -> None:
        super().__init__("tests.faults.nodes")
        self.environment = QUICK | {"RAY_ADDRESS": self.greeting}

    def workers(self) -> list[int]:
        """Return the processes that train."""
        return workers(self.process.pid, "RayTrainWorker")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    cluster = Nodes()
    yield cluster
    kill_everything(cluster.process)


@pytest.fixture(scope="module")
def expected(training_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one worker that nothing disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start_training(str(training_pictures), out, steps=STEPS))
    return out


def wait_for_workers(nodes: Nodes, count: int, job: Job) -> list[int]:
    wait_for(f"{count} workers", job, lambda: len(nodes.workers()) == count)
    return nodes.workers()


def test_the_worker_s_node_dies(nodes: Nodes, training_pictures: Path, expected: Path, tmp_path: Path):
    out = tmp_path / "out"
    job = start_training(str(training_pictures), out, steps=STEPS, checkpoint_every=10, environment=nodes.environment)
    wait_for_checkpoint(out, 10, job)
    (worker,) = nodes.workers()
    assert nodes.order("kill", worker) == "killed"
    said = finish(job)
    assert len(resumed_at(said)) == 1 and resumed_at(said)[0] >= 10, said
    assert_same_run(out, expected)


def test_the_node_s_end_is_announced(nodes: Nodes, training_pictures: Path, expected: Path, tmp_path: Path):
    """Only the notice makes this run write a checkpoint before its end."""
    out = tmp_path / "out"
    job = start_training(
        str(training_pictures), out, steps=STEPS, checkpoint_every=STEPS, environment=nodes.environment
    )
    (worker,) = wait_for_workers(nodes, 1, job)
    assert nodes.order("drain", worker, 10) == "announced"
    wait_for("the checkpoint", job, lambda: complete_checkpoints(out))
    (noticed_at,) = complete_checkpoints(out)
    assert noticed_at < STEPS
    assert nodes.order("kill", worker) == "killed"
    said = finish(job)
    assert resumed_at(said) == [noticed_at], said
    assert_same_run(out, expected)


def test_of_two_workers_one_is_left(nodes: Nodes, training_pictures: Path, expected: Path, tmp_path: Path):
    out = tmp_path / "out"
    job = start_training(
        str(training_pictures), out, steps=STEPS, checkpoint_every=10, num_workers="1:2", environment=nodes.environment
    )
    wait_for_checkpoint(out, 10, job)
    both = wait_for_workers(nodes, 2, job)
    assert nodes.order("kill", both[0]) == "killed"
    said = finish(job)
    assert resumed_at(said)[0] >= 10, said
    one, two = rows_of(expected), rows_of(out)
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    assert [row["learning_rate"] for row in two] == [row["learning_rate"] for row in one]
    for step in range(8):
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=2e-3)
    means = [sum(row["loss"] for row in rows[-50:]) / 50 for rows in (one, two)]
    assert means[1] == pytest.approx(means[0], rel=0.03)
