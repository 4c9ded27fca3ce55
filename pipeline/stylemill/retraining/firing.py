"""Records of firings and of rollbacks below OUT.

A firing is one run of ``stylemill retrain``. ``firing.json`` records what it was started with, and ``FiringLayout``
names its files, so that a retry continues where a killed firing ended. A rollback is recorded as an outcome, next to
the outcomes of the firings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from stylemill.config import digest
from stylemill.errors import ConfigError, ObjectNotFound, RegistryError, config_errors_for
from stylemill.registry import Promotion, Registry, locate_model
from stylemill.retraining.config import CHAMPION, RetrainConfig
from stylemill.retraining.outcome import Evidence, Outcome, load_outcomes
from stylemill.storage import Storage, join, resolve
from stylemill.storage.json_records import record_from_json, record_to_json
from stylemill.storage.sources import find_sources
from stylemill.style_file import load_style_header
from stylemill.training.config import BUILTIN, SCRATCH, SETTINGS_THAT_MAY_CHANGE, TrainConfig, settings_of

_NOT_IN_DIGEST = {*SETTINGS_THAT_MAY_CHANGE, "style_image", "content"} - {"steps"}
"""Settings that do not change the candidate, and settings whose content is hashed instead."""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """What a firing was started with; stored as ``firing.json`` and never changed."""

    name: str
    style: str
    inputs_digest: str
    """Digest of all inputs of the candidate's training except the champion."""
    champion_number: int | None
    """Number of the newest promotion when the firing started; the decision is about replacing that champion."""
    champion_version: str | None
    begun_at: str
    """UTC, ISO 8601."""

    def to_bytes(self) -> bytes:
        """Return the content of ``firing.json``."""
        return record_to_json(self)


@dataclass(frozen=True, kw_only=True)
class FiringLayout:
    """Locations of one firing below OUT."""

    out: str
    name: str

    @property
    def folder_uri(self) -> str:
        """Folder of the firing."""
        return join(self.out, "firings", self.name)

    @property
    def firing_uri(self) -> str:
        """Location of ``firing.json``."""
        return join(self.folder_uri, "firing.json")

    @property
    def training_uri(self) -> str:
        """The candidate's training run."""
        return join(self.folder_uri, "training")

    @property
    def evaluation_uri(self) -> str:
        """Measurements of champion and candidate."""
        return join(self.folder_uri, "evaluation")

    @property
    def decision_uri(self) -> str:
        """The decision, written before it is carried out."""
        return join(self.folder_uri, "decision.json")

    @property
    def notified_uri(self) -> str:
        """Exists once the webhook has accepted the outcome."""
        return join(self.folder_uri, "notified.json")

    @property
    def outcome_uri(self) -> str:
        """The firing's outcome, written last."""
        return join(self.out, "outcomes", f"{self.name}.json")


def digest_of_inputs(storage: Storage, config: RetrainConfig) -> str:
    """Return a digest of the content listing, the style image and the settings that shape the weights.

    Raises:
        ConfigError: the style image does not exist, or there is no content.
        StorageError: storage failed beyond its retries.
    """
    style_image = resolve(config.style_image[0])
    try:
        style_sha256 = hashlib.sha256(storage.read_bytes(style_image)).hexdigest()
    except ObjectNotFound:
        raise ConfigError("style_image", style_image, "does not exist", "give the location of an image") from None
    listing = hashlib.sha256()
    num_found = 0
    for location in config.content:
        for found in find_sources(storage, resolve(location)):
            listing.update(json.dumps([found.uri, found.size_bytes, found.etag]).encode())
            num_found += 1
    if not num_found:
        cure = "give a prefix, glob, file or list of locations that holds some"
        raise ConfigError("content", list(config.content), "holds no images", cure)
    settings = settings_of(TrainConfig(**_train_values(config)))
    recipe = {name: value for name, value in settings.items() if name not in _NOT_IN_DIGEST}
    recipe |= {"start": _start_digest(storage, config), "style": config.style_name}
    return digest({"style_image": style_sha256, "content": listing.hexdigest(), "recipe": recipe})


def _start_digest(storage: Storage, config: RetrainConfig) -> str:
    """Return the choice of the start, or the digest of the style model that it names."""
    if config.start in (CHAMPION, BUILTIN, SCRATCH):
        return config.start
    with config_errors_for("start", value=config.start, keep=("registry",)):
        return load_style_header(storage, locate_model(storage, config.start, config.registry)).sha256


def _train_values(config: RetrainConfig) -> dict[str, Any]:
    return vars(config.train_config(out=config.out, start=config.start))


def begin(
    storage: Storage, layout: FiringLayout, *, style: str, inputs_digest: str, champion: Promotion | None, begun_at: str
) -> Firing:
    """Record the start of a firing, or return the record that it wrote before it was killed.

    Raises:
        ConfigError: a firing of this name was started with other inputs.
        RegistryError: the record is damaged.
    """
    firing = Firing(
        name=layout.name,
        style=style,
        inputs_digest=inputs_digest,
        champion_number=champion.number if champion else None,
        champion_version=champion.version if champion else None,
        begun_at=begun_at,
    )
    if storage.create_bytes(layout.firing_uri, firing.to_bytes()):
        return firing
    recorded = record_from_json(
        Firing,
        storage.read_bytes(layout.firing_uri),
        layout.firing_uri,
        cure="run it again under another --firing",
        error_type=RegistryError,
    )
    if (recorded.style, recorded.inputs_digest) != (style, inputs_digest):
        cure = "give every firing another name, or leave --firing out"
        raise ConfigError("firing", layout.name, "was started with other images or settings", cure)
    return recorded


def roll_back(
    storage: Storage, registry: Registry, style: str, *, reason: str, to: str | None = None, out: str | None = None
) -> Outcome:
    """Make an earlier champion the champion again.

    Args:
        storage: storage of the outcomes.
        registry: registry of the style.
        style: name of the style.
        reason: text for people.
        to: version of the new champion; by default the newest earlier champion that still exists.
        out: output location of the style's retraining, to write the outcome there; otherwise the next firing writes it.

    Returns:
        The outcome, like that of a firing.

    Raises:
        ConfigError: there is no version to roll back to.
        RegistryError: the model file of the version is missing or damaged.
        RunConflict: the champion was changed in the meantime.
        StorageError: storage failed beyond its retries.
    """
    outcome = _outcome_of(registry.rollback(style, reason=reason, to=to))
    if out is not None:
        _write_outcome(storage, out, outcome)
    return outcome


def record_rollbacks(storage: Storage, registry: Registry, style: str, out: str) -> None:
    """Write the missing outcomes of rollbacks: those that were made without ``out``, or killed before they wrote it.

    Rollbacks from before the first decision in ``out`` get no outcome.
    """
    recorded = [outcome for outcome in load_outcomes(storage, out) if outcome.style == style]
    if not recorded:
        return
    names, first_at = {outcome.firing for outcome in recorded}, min(outcome.begun_at for outcome in recorded)
    for promotion in registry.history(style):
        outcome = _outcome_of(promotion)
        if promotion.kind == "rolled_back" and outcome.firing not in names and promotion.at >= first_at:
            _write_outcome(storage, out, outcome)


def _write_outcome(storage: Storage, out: str, outcome: Outcome) -> None:
    storage.create_bytes(FiringLayout(out=resolve(out), name=outcome.firing).outcome_uri, outcome.to_bytes())


def _outcome_of(promotion: Promotion) -> Outcome:
    """Return the outcome of a rollback; equal rollbacks give equal outcomes."""
    return Outcome(
        firing=f"rollback-{promotion.style}-{promotion.number}",
        style=promotion.style,
        decision="rolled_back",
        champion=promotion.version,
        candidate=promotion.previous_version,
        previous_champion=promotion.previous_version,
        reason=promotion.reason,
        evidence=asdict(Evidence()),
        begun_at=promotion.at,
        decided_at=promotion.at,
    )
