"""The scheduled flow: check for new inputs, train a candidate, compare it with the champion, promote it or not.

Every stage stores its result before the next one starts and can be repeated without harm, so the same command finishes
a firing that was killed at any point.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from stylemill.errors import ConfigError, ObjectNotFound, PathConflict, RegistryError, RunConflict
from stylemill.evaluation.config import EvaluateConfig, JudgeConfig, check_installed
from stylemill.evaluation.measure import evaluate, prepare
from stylemill.evaluation.schema import model_label, read_measurements
from stylemill.registry import Registry, Version, can_name_a_version, registry_uri
from stylemill.retraining.config import CHAMPION, RetrainConfig, webhook_from
from stylemill.retraining.firing import Firing, FiringLayout, begin, digest_of_inputs, record_rollbacks
from stylemill.retraining.outcome import DecisionKind, Evidence, Outcome, Verdict, decide, load_outcomes, read_outcome
from stylemill.retraining.reporting import SECRET_VARIABLE, notify
from stylemill.storage import Storage, join, resolve
from stylemill.storage.lease import acquire
from stylemill.storage.sources import find_sources
from stylemill.storage.user_errors import writing_output
from stylemill.training.config import BUILTIN, TrainConfig
from stylemill.training.layout import TrainLayout

log = logging.getLogger(__name__)

TrainCandidate = Callable[[TrainConfig], bool]
"""Trains or resumes a training; returns False if it was stopped before its end."""
OnStage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RetrainResult:
    """The result of a firing."""

    outcome: Outcome | None
    """None if the training was stopped before its end, or nothing was done."""
    is_new: bool
    """False if this firing, or another one with the same images and settings, had already decided."""
    is_notified: bool = True
    """Whether the webhook, if there is one, accepted the outcome."""
    held_by: str | None = None
    """The other process that is retraining this style; nothing was done in that case."""


def retrain(config: RetrainConfig, train_candidate: TrainCandidate, on_stage: OnStage) -> RetrainResult:
    """Run one firing, or resume it.

    Args:
        config: what to train, and how to compare it.
        train_candidate: runs a training; the caller owns Ray and the terminal.
        on_stage: called with a description of each stage, for people.

    Raises:
        ConfigError: the config is wrong, a package that the comparison needs is not installed, or the location of the
            registry is not a registry.
        RunConflict: the champion was changed while the decision about it was made.
        RegistryError: the champion's model is missing or damaged; nothing is promoted.
        StorageError: storage failed beyond its retries; the same command resumes.
    """
    # Both raise before anything is done.
    check_installed()
    webhook_from(config, os.environ)
    storage, out = Storage(config.storage), resolve(config.out)
    _check_before_training(storage, config)
    registry = Registry.create(storage, registry_uri(config.registry, "retraining"))
    style = config.style_name
    try:
        with writing_output(config.out, only=PathConflict):
            lease = acquire(storage, join(out, "lease", style), on_wait=on_stage)
    except RunConflict as conflict:
        return RetrainResult(outcome=None, is_new=False, held_by=str(conflict))
    with lease:
        inputs_digest = digest_of_inputs(storage, config)
        layout = FiringLayout(out=out, name=config.firing or inputs_digest[:16])
        record_rollbacks(storage, registry, style, out)
        stored = read_outcome(storage, layout.outcome_uri)
        if stored is not None:
            return RetrainResult(
                outcome=stored, is_new=False, is_notified=_notify_once(storage, config, layout, stored)
            )
        same = _earlier_decision(storage, out, style, inputs_digest)
        if same is not None and not storage.exists(layout.firing_uri):
            return RetrainResult(outcome=same, is_new=False)
        return _Retraining(config, storage, registry, layout, on_stage).run(inputs_digest, train_candidate)


def _check_before_training(storage: Storage, config: RetrainConfig) -> None:
    """Raise ConfigError for mistakes that would otherwise show only after hours of training."""
    if not can_name_a_version(config.style_name):
        cure = "give --name with letters, digits, '.', '_' and '-'"
        raise ConfigError("name", config.style_name, "cannot name a style in the registry", cure)
    if next(find_sources(storage, resolve(config.holdout)), None) is None:
        cure = "give a prefix, glob or file with images that are not used in training"
        raise ConfigError("holdout", config.holdout, "holds no images", cure)


def _earlier_decision(storage: Storage, out: str, style: str, inputs_digest: str) -> Outcome | None:
    """Return the newest outcome of a firing that trained on the same images with the same settings, or None."""
    for outcome in reversed(load_outcomes(storage, out)):
        if outcome.style != style or outcome.decision == "rolled_back":
            continue
        firing_uri = FiringLayout(out=out, name=outcome.firing).firing_uri
        try:
            is_same = f'"{inputs_digest}"'.encode() in storage.read_bytes(firing_uri)
        except ObjectNotFound:
            continue
        if is_same:
            return outcome
    return None


def _notify_once(storage: Storage, config: RetrainConfig, layout: FiringLayout, outcome: Outcome) -> bool:
    """Post the outcome to the webhook unless it has accepted it before; return whether it has."""
    webhook = webhook_from(config, os.environ)
    if webhook is None or storage.exists(layout.notified_uri):
        return True
    if not notify(webhook, outcome.to_bytes(), os.environ.get(SECRET_VARIABLE)):
        return False
    storage.create_bytes(layout.notified_uri, b"{}")
    return True


class _Retraining:
    """The stages of one firing."""

    def __init__(
        self, config: RetrainConfig, storage: Storage, registry: Registry, layout: FiringLayout, on_stage: OnStage
    ) -> None:
        self._config, self._storage, self._registry = config, storage, registry
        self._layout, self._on_stage = layout, on_stage

    def run(self, inputs_digest: str, train_candidate: TrainCandidate) -> RetrainResult:
        config = self._config
        champion = self._registry.champion(config.style_name)
        firing = begin(
            self._storage,
            self._layout,
            style=config.style_name,
            inputs_digest=inputs_digest,
            champion=champion,
            begun_at=_now(),
        )
        over = self._checked_champion(firing)
        candidate = self._train(over, train_candidate)
        if candidate is None:
            return RetrainResult(outcome=None, is_new=True)
        outcome = self._decide(firing, over, candidate)
        if outcome.decision == "promoted":
            self._on_stage(f"promoting {candidate.style}@{candidate.version}")
            self._registry.promote(
                candidate.style,
                candidate.version,
                reason=outcome.reason,
                over=firing.champion_number,
                evidence=outcome.evidence,
            )
        self._storage.create_bytes(self._layout.outcome_uri, outcome.to_bytes())
        is_notified = _notify_once(self._storage, config, self._layout, outcome)
        return RetrainResult(outcome=outcome, is_new=True, is_notified=is_notified)

    def _checked_champion(self, firing: Firing) -> Version | None:
        """Return the champion at the start of the firing, after a check of its model."""
        if firing.champion_version is None:
            return None
        version = self._registry.version(firing.style, firing.champion_version)
        self._registry.check(version)
        return version

    def _train(self, champion: Version | None, train_candidate: TrainCandidate) -> Version | None:
        config = self._config
        start, shown = config.start, config.start
        if start == CHAMPION:
            start = shown = BUILTIN
            if champion is not None:
                start, shown = self._registry.model_uri(champion.style, champion.version), champion.version
        train = config.train_config(out=self._layout.training_uri, start=start)
        self._on_stage(f"training from {shown}")
        if not train_candidate(train):
            return None
        style_uri = TrainLayout(self._layout.training_uri).style_uri
        note = f"firing {self._layout.name}"
        return self._registry.add(self._storage.read_bytes(style_uri), source_uri=style_uri, note=note)

    def _decide(self, firing: Firing, champion: Version | None, candidate: Version) -> Outcome:
        """Return the decision: the stored one if the firing was killed after it, else a new one."""
        stored = read_outcome(self._storage, self._layout.decision_uri)
        if stored is not None:
            return stored
        if champion is None:
            verdict = Verdict(is_better=True, reason="there was no champion", evidence=Evidence())
        elif champion.sha256 == candidate.sha256:
            verdict = Verdict(
                is_better=False, reason="the candidate equals the champion, bit for bit", evidence=Evidence()
            )
        else:
            self._on_stage(f"comparing {candidate.version} with the champion {champion.version}")
            table = self._evaluate(champion, candidate)
            before, after = (model_label(version.style, version.version) for version in (champion, candidate))
            verdict = decide(table, before, after, self._config)
        decision: DecisionKind = "promoted" if verdict.is_better else "kept"
        kept = champion.version if champion else None
        outcome = Outcome(
            firing=firing.name,
            style=firing.style,
            decision=decision,
            champion=candidate.version if verdict.is_better else kept,
            candidate=candidate.version,
            previous_champion=kept,
            reason=verdict.reason,
            evidence=asdict(verdict.evidence),
            begun_at=firing.begun_at,
            decided_at=_now(),
        )
        self._storage.create_bytes(self._layout.decision_uri, outcome.to_bytes())
        written = read_outcome(self._storage, self._layout.decision_uri)
        if written is None:
            raise RegistryError(
                f"{self._layout.decision_uri} was removed while it was written; run the same command again"
            )
        return written

    def _evaluate(self, champion: Version, candidate: Version) -> pa.Table:
        """Return the evaluation of both models: the stored one if it was finished before a kill, else a new one."""
        try:
            return read_measurements(self._storage, self._layout.evaluation_uri)
        except (ObjectNotFound, ValueError):  # not done, or by a version with other columns
            pass
        config = self._config
        versions = (champion, candidate)
        evaluation = EvaluateConfig(
            model=tuple(self._registry.model_uri(version.style, version.version) for version in versions),
            content=config.holdout,
            out=self._layout.evaluation_uri,
            judge=JudgeConfig(
                style_image=config.style_image[0],
                loss_network=config.loss_network,
                loss_weights=config.loss_weights,
                content_layers=config.content_layers,
                style_layers=config.style_layers,
            ),
            num_images=config.num_images,
            size_px=config.size_px,
            seed=config.seed,
            storage=config.storage,
        )
        return evaluate(self._storage, prepare(self._storage, evaluation))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
