"""A firing killed at any of its writes: the retry ends it, and every decision is made and carried out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stylemill.registry import Registry
from stylemill.retraining import retrain as flow
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.outcome import Outcome, load_outcomes
from stylemill.storage import Storage
from tests.faults.training_jobs import SETTINGS, resumed_at, wait_for_checkpoint
from tests.processes import Job, finish, kill_everything
from tests.retraining_runs import STYLE, Trainer, fire, grow, make_config
from tests.training_runs import assert_same_run

WRITES_OF_A_FIRING = 10
"""At least; the pictures of the evaluation apart."""

STEPS = 24


class _Killed(BaseException):
    """Stands for the end of the process: nothing in the product may catch it."""


class _DyingStorage(Storage):
    """Storage of a process that is killed right before or right after its n-th write."""

    left = 0
    after = False

    def _die(self, uri: str, write: Callable[[], Any]) -> Any:
        if "/evaluation/images/" in uri:
            return write()
        type(self).left -= 1
        if self.left == 0 and not self.after:
            raise _Killed
        result = write()
        if self.left == 0:
            raise _Killed
        return result

    def write_bytes(self, uri: str, data: bytes, *, durable: bool = False) -> None:
        self._die(uri, lambda: super(_DyingStorage, self).write_bytes(uri, data, durable=durable))

    def create_bytes(self, uri: str, data: bytes) -> bool:
        created: bool = self._die(uri, lambda: super(_DyingStorage, self).create_bytes(uri, data))
        return created


def _kill_points(config: RetrainConfig, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Kill a firing at its first write, its second, ... until one ends undisturbed; yield after each retry."""
    number = 0
    while True:
        number += 1
        grow(config, number)
        trainer.version = f"v{number}"
        _DyingStorage.left = number
        with monkeypatch.context() as patch:
            patch.setattr(flow, "Storage", _DyingStorage)
            patch.setattr("stylemill.storage.lease.HeldLease._renew", lambda self: None)  # writes at its own times
            patch.setattr("stylemill.storage.lease.HeldLease.__exit__", lambda self, *exception: None)
            try:
                fire(config, trainer)
                return
            except _Killed:
                pass
        assert fire(config, trainer).outcome is not None
        yield number


@pytest.mark.parametrize(
    "after", [pytest.param(False, marks=pytest.mark.smoke), pytest.param(True, marks=pytest.mark.slow)]
)
def test_killed_at_any_write_the_retry_decides_once(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, trainer = make_config(tmp_path), Trainer()
    monkeypatch.setattr(_DyingStorage, "after", after)
    # The dead process's lease is free at once, as that of a process that is gone from this machine.
    monkeypatch.setattr("stylemill.storage.lease.Holder.is_dead_here", True)
    trainer.noise = 30.0
    fire(config, trainer)
    number = 0
    for number in _kill_points(config, trainer, monkeypatch):
        trainer.noise *= 0.8  # each candidate is better than the champion
        outcomes = load_outcomes(Storage(), config.out)
        assert [outcome.candidate for outcome in outcomes][-1] == f"v{number}"
        assert len(outcomes) == number + 1
        history = Registry.open(Storage(), str(config.registry)).history(STYLE)
        promoted = [outcome.candidate for outcome in outcomes if outcome.decision == "promoted"]
        assert [promotion.version for promotion in history] == promoted
    assert number >= WRITES_OF_A_FIRING


@pytest.mark.slow
@pytest.mark.long
def test_killed_while_it_trains_the_retry_ends_with_the_candidate_of_an_undisturbed_firing(
    training_pictures: Path, start_job: Callable[..., Job], tmp_path: Path
):
    settings = {
        **SETTINGS, "style-image": training_pictures / "style.png", "content": training_pictures / "content",
        "holdout": training_pictures / "content", "steps": STEPS, "checkpoint-every": 2,
    }  # fmt: skip

    def begin(folder: Path) -> Job:
        places = {"out": folder / "out", "registry": folder / "registry"}
        flags = [(f"--{name.replace('_', '-')}", value) for name, value in (settings | places).items()]
        return start_job("retrain", *(word for flag in flags for word in flag))

    def outcome_in(folder: Path) -> Outcome:
        (outcome,) = load_outcomes(Storage(), str(folder / "out"))
        return outcome

    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(begin(undisturbed))
    firing = outcome_in(undisturbed).firing
    training = Path("out", "firings", firing, "training")
    job = begin(disturbed)
    wait_for_checkpoint(disturbed / training, 10, job)
    kill_everything(job)
    assert not list(disturbed.glob("out/outcomes/*"))
    said = finish(begin(disturbed))
    assert len(resumed_at(said)) == 1 and f"{STEPS} in all" in said
    outcome = outcome_in(disturbed)
    assert (outcome.firing, outcome.decision) == (firing, "promoted")
    assert_same_run(undisturbed / training, disturbed / training)
    registry = Registry.open(Storage(), str(disturbed / "registry"))
    assert [version.version for version in registry.versions("style")] == [outcome.candidate]
    assert [promotion.version for promotion in registry.history("style")] == [outcome.champion]
    assert "nothing new since" in finish(begin(disturbed))
    assert outcome_in(disturbed) == outcome
