"""The retraining flow: every decision is made once, and only better candidates are promoted."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stylemill.errors import ConfigError, RegistryError, RunConflict
from stylemill.registry import Registry
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.firing import roll_back
from stylemill.retraining.outcome import load_outcomes
from stylemill.retraining.retrain import RetrainResult, retrain
from stylemill.storage import Storage
from stylemill.training.config import TrainConfig
from tests.retraining_runs import STYLE, Trainer, champion, fire, grow, make_config, rough_style


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def config(tmp_path: Path) -> RetrainConfig:
    return make_config(tmp_path)


def test_first_better_worse_and_nothing_new(config: RetrainConfig, trainer: Trainer):
    first = fire(config, trainer).outcome
    assert first is not None and (first.decision, first.reason) == ("promoted", "there was no champion")
    again = fire(config, trainer)
    assert (again.is_new, again.outcome) == (False, first) and len(trainer.starts) == 1

    grow(config, 1)
    trainer.version, trainer.noise = "better", 1.0
    better = fire(config, trainer).outcome
    assert better is not None and (better.decision, better.champion) == ("promoted", "better")
    assert better.evidence["sample_size"] == 8 and better.evidence["p_value"] < 0.05
    assert trainer.starts == ["builtin", registry_of(config).model_uri(STYLE, "first")]

    grow(config, 2)
    trainer.version, trainer.noise = "worse", 60.0
    worse = fire(config, trainer).outcome
    assert worse is not None and (worse.decision, worse.champion, worse.candidate) == ("kept", "better", "worse")
    assert champion(config) == "better"

    rolled = roll_back(Storage(), registry_of(config), STYLE, out=config.out, reason="too rough")
    assert (rolled.decision, rolled.champion) == ("rolled_back", "first") and champion(config) == "first"
    decisions = [outcome.decision for outcome in load_outcomes(Storage(), config.out)]
    assert decisions == ["promoted", "promoted", "kept", "rolled_back"]
    # What was decided about the same photographs and settings is not decided again, champion or not.
    assert fire(config, trainer).is_new is False


def test_another_model_at_the_place_to_start_from_is_a_new_input(
    config: RetrainConfig, trainer: Trainer, tmp_path: Path
):
    (tmp_path / "start.safetensors").write_bytes(rough_style("a", 1.0))
    fire(config, trainer, start=str(tmp_path / "start.safetensors"))
    assert fire(config, trainer, start=str(tmp_path / "start.safetensors")).is_new is False
    (tmp_path / "start.safetensors").write_bytes(rough_style("b", 2.0))
    trainer.version = "second"
    assert fire(config, trainer, start=str(tmp_path / "start.safetensors")).is_new is True


def test_a_style_without_its_own_colours_is_refused(config: RetrainConfig):
    with pytest.raises(ConfigError, match="style_colors='content': cannot be judged"):
        replace(config, style_colors="content")


def test_a_missing_package_is_reported_before_hours_of_training(
    config: RetrainConfig, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "statsmodels" else find_spec(name))
    with pytest.raises(ConfigError, match=r"evaluation='statsmodels': is not installed.*stylemill\[evaluation\]"):
        fire(config, trainer)
    assert trainer.starts == [] and not Path(config.out).exists() and not Path(str(config.registry)).exists()


def registry_of(config: RetrainConfig) -> Registry:
    return Registry.open(Storage(), str(config.registry))


def test_a_rollback_without_out_is_recorded_by_the_next_firing(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer)
    grow(config, 1)
    trainer.version, trainer.noise = "better", 1.0
    fire(config, trainer)
    rolled = roll_back(Storage(), registry_of(config), STYLE, reason="too smooth")
    assert "rolled_back" not in [outcome.decision for outcome in load_outcomes(Storage(), config.out)]
    for _ in range(2):
        assert fire(config, trainer).is_new is False
        outcomes = load_outcomes(Storage(), config.out)
        assert [outcome for outcome in outcomes if outcome.decision == "rolled_back"] == [rolled]
    assert (outcomes[-1].champion, outcomes[-1].candidate, outcomes[-1].reason) == ("first", "better", "too smooth")


def test_rollbacks_from_before_the_first_firing_get_no_outcome(config: RetrainConfig, trainer: Trainer):
    registry = Registry.create(Storage(), str(config.registry))
    for version, noise, over in (("a", 1.0, None), ("b", 2.0, 1)):
        registry.add(rough_style(version, noise), source_uri="here")
        registry.promote(STYLE, version, reason="by hand", over=over)
    roll_back(Storage(), registry, STYLE, reason="long ago")
    for number in (1, 2):
        grow(config, number)
        trainer.version = f"v{number}"
        fire(config, trainer, num_images=2)
    assert [outcome.firing.startswith("rollback") for outcome in load_outcomes(Storage(), config.out)] == [False] * 2


def test_from_scratch_and_under_a_name_of_its_own(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer, firing="monday")
    grow(config, 1)
    trainer.version = "second"
    outcome = fire(config, trainer, firing="tuesday", start="scratch", num_images=2).outcome
    assert outcome is not None and outcome.firing == "tuesday" and trainer.starts == ["builtin", "scratch"]
    assert Path(config.out, "outcomes", "tuesday.json").exists()
    grow(config, 2)
    assert fire(config, trainer, firing="tuesday").is_new is False  # it has decided
    Path(config.out, "outcomes", "tuesday.json").unlink()
    with pytest.raises(ConfigError, match="was started with other images"):
        fire(config, trainer, firing="tuesday")


def test_a_stopped_training_decides_nothing(config: RetrainConfig):
    result = retrain(config, lambda train: False, lambda stage: None)
    assert result.outcome is None and champion(config) is None
    assert not Path(config.out, "outcomes").exists()


def test_a_damaged_champion_stops_the_firing(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer)
    path = Path(registry_of(config).model_uri(STYLE, "first"))
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    grow(config, 1)
    trainer.version = "second"
    with pytest.raises(RegistryError, match="fails its checksum"):
        fire(config, trainer)
    assert champion(config) == "first" and len(load_outcomes(Storage(), config.out)) == 1


def test_a_champion_that_changed_meanwhile_is_not_overruled(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer)
    registry = Registry.open(Storage(), str(config.registry))
    registry.add(rough_style("by-hand", 5.0), source_uri="/by/hand")

    def train_while_somebody_promotes(train: TrainConfig) -> bool:
        registry.promote(STYLE, "by-hand", reason="I like it", over=1)
        return trainer(train)

    grow(config, 1)
    trainer.version, trainer.noise = "better", 1.0
    with pytest.raises(RunConflict, match="was changed meanwhile and is by-hand"):
        retrain(config, train_while_somebody_promotes, lambda stage: None)
    assert champion(config) == "by-hand"


def test_a_second_firing_names_the_first(config: RetrainConfig, trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stylemill.storage.lease.RENEW_PERIOD_S", 0.05)
    seen: list[RetrainResult] = []

    def fire_again(train: TrainConfig) -> bool:
        seen.append(fire(config, trainer))
        return trainer(train)

    assert retrain(config, fire_again, lambda stage: None).outcome is not None
    (second,) = seen
    assert second.outcome is None and second.held_by is not None and "which is alive" in second.held_by
    assert len(trainer.starts) == 1


def test_a_model_that_gives_nan_is_not_promoted(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer)
    grow(config, 1)
    trainer.version, trainer.noise = "overflowing", 1e38
    with pytest.raises(ConfigError, match="not finite"):
        fire(config, trainer, num_images=2)
    assert champion(config) == "first"


def test_the_outcome_file_is_for_machines(config: RetrainConfig, trainer: Trainer):
    fire(config, trainer, firing="one")
    grow(config, 1)
    trainer.version, trainer.noise = "better", 1.0
    fire(config, trainer, firing="two")
    told = json.loads(Path(config.out, "outcomes", "two.json").read_bytes())
    assert {"decision", "champion", "candidate", "reason", "evidence"} <= told.keys()
    wanted = {"sample_size", "effect", "p_value", "interval", "probability_of_being_better"}
    assert wanted <= told["evidence"].keys() and np.isfinite(told["evidence"]["interval"]).all()


@pytest.mark.parametrize("field", ["holdout", "name", "out"])
def test_mistakes_that_matter_after_the_training_are_found_before_it(
    config: RetrainConfig, trainer: Trainer, tmp_path: Path, field: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    wrong = {"holdout": str(tmp_path / "empty"), "name": "night & day", "out": str(tmp_path / "file")}
    with pytest.raises(ConfigError) as caught:
        fire(config, trainer, **{field: wrong[field]})
    assert caught.value.field == field and trainer.starts == []
