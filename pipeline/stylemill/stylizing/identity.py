"""Identity of a run: which settings, models and sources make two invocations the same run.

A ``RunIdentity`` is stored as ``run.json`` in the run's folder and never changes. Its fingerprint is a hash of
everything that changes output bytes. ``BulkJob`` passes identity, config and layout to the actors of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from stylemill.config import digest, to_mapping
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import claim_tree, is_claimed
from stylemill.manifest.read import load_history
from stylemill.storage import Storage
from stylemill.storage.json_records import record_to_json
from stylemill.storage.lease import Lease
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.style_rule import StyleRule

IncrementalKind = Literal["incremental", "retry_failed", "repair"]
"""Why a run has a parent: it paints new and changed sources, failed ones, or broken results (``manifest repair``)."""

ENGINE_VERSION = 2
"""Incremented when a change of the code changes output bytes."""

_BYTE_FIELDS = (
    "strength",
    "preserve_color",
    "max_size_px",
    "texture_scale",
    "precision",
    "device",
    "max_memory",
    "max_pixels",
    "animation",
    "format",
    "quality",
    "keep_metadata",
)
"""Config fields that change output bytes, besides the model."""


@dataclass(frozen=True, kw_only=True)
class StyleRef:
    """One style of a run with the exact model."""

    name: str
    version: str
    model_sha256: str
    fingerprint: str
    """Hash of the settings and this model: the ``fingerprint`` column."""
    tree: str = ""
    """Folder of the images below ``images/`` (``manifest/output.py``); empty in runs of early versions."""

    @property
    def folder(self) -> str:
        """``tree``, or what it was in early versions: the style's name."""
        return self.tree or self.name


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Content of ``run.json``."""

    run_id: str
    input: str
    fingerprint: str
    styles: tuple[StyleRef, ...]
    settings: dict[str, Any]
    parent_run_id: str | None = None
    """For an incremental run, the newest committed run over the same sources."""
    follow_up: IncrementalKind | None = None
    """Kind of an incremental run; None for a run over all sources."""

    @property
    def style_rule(self) -> StyleRule:
        """How the style of each source is chosen."""
        return StyleRule(by=self.settings.get("style_by"), seed=self.settings.get("style_seed", 0))

    @property
    def styles_per_source(self) -> int:
        """Number of styles in which each source is painted."""
        return len(self.styles) if self.style_rule.by is None else 1

    def to_json(self) -> bytes:
        """Return the content of ``run.json``."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> RunIdentity:
        """Read ``run.json``; raise ValueError, KeyError or TypeError if it is damaged."""
        tree = json.loads(data)
        return cls(**{**tree, "styles": tuple(StyleRef(**style) for style in tree["styles"])})


def byte_settings(config: StylizeConfig) -> dict[str, Any]:
    """Return the settings that change output bytes, without the models."""
    tree = to_mapping(config)
    settings = {name: tree[name] for name in _BYTE_FIELDS}
    if config.gpu_decode:  # left out when off, so that it does not change other fingerprints
        settings["gpu_decode"] = True
    if config.look == "folder":  # the look of a library is part of the model
        settings["look"] = "folder"
    # Tiles give the result of the whole image. The entry is a constant that every fingerprint contains.
    return {**settings, "max_memory": config.paint.max_memory_bytes, "tiles": "exact", "engine": ENGINE_VERSION}


def identify(config: StylizeConfig, source_root: str, out: str, models: Sequence[tuple[str, str, str]]) -> RunIdentity:
    """Return the identity of the run that a config describes.

    Args:
        config: settings of the run.
        source_root: resolved input location.
        out: resolved output location.
        models: name, version and SHA-256 of each style model.
    """
    settings = byte_settings(config)
    rule = {} if config.style_by is None else {"style_by": config.style_by, "style_seed": config.style_seed}
    styles = tuple(
        StyleRef(name=name, version=version, model_sha256=sha256, fingerprint=digest({**settings, "model": sha256}))
        for name, version, sha256 in sorted(models)
    )
    fingerprint = digest({"styles": [style.fingerprint for style in styles]})
    run_id = (
        config.run_id
        or digest(
            {
                "input": source_root,
                "out": out,
                "fingerprint": fingerprint,
                "styles": [style.name for style in styles],
                **rule,
            }
        )[:16]
    )
    return RunIdentity(
        run_id=run_id, input=source_root, fingerprint=fingerprint, styles=styles, settings={**settings, **rule}
    )


def claim_trees(storage: Storage, out: str, identity: RunIdentity) -> RunIdentity:
    """Return the identity with the folder of each style's images, as the output's first runs left them free."""
    unclaimed = {style.name for style in identity.styles if not is_claimed(storage, out, style.name)}
    for run in load_history(storage, out) if unclaimed else ():  # those of early versions claimed nothing
        for early in run.success.styles:
            if not early.get("tree") and early["name"] in unclaimed:
                lineage = _lineage(run.success.input, early["fingerprint"])
                claim_tree(storage, out, early["name"], lineage, run.success.input)
    styles = []
    for style in identity.styles:
        lineage = _lineage(identity.input, style.fingerprint)
        styles.append(replace(style, tree=claim_tree(storage, out, style.name, lineage, identity.input)))
    return replace(identity, styles=tuple(styles))


def _lineage(input_uri: str, fingerprint: str) -> str:
    return digest({"input": input_uri, "fingerprint": fingerprint})


def differences(old: RunIdentity, new: RunIdentity) -> list[str]:
    """Return one phrase for each difference between two identities: ``quality 90 -> 80``."""
    phrases = _differing(old.settings, new.settings)
    if old.input != new.input:
        phrases.append(f"input {old.input} -> {new.input}")
    phrases += _differing(
        {f"model {style.name}": style.model_sha256[:12] for style in old.styles},
        {f"model {style.name}": style.model_sha256[:12] for style in new.styles},
    )
    return phrases


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    names = [*old, *(name for name in new if name not in old)]
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """One invocation of one run; passed to every actor."""

    config: StylizeConfig
    identity: RunIdentity
    layout: RunLayout
    lease_token: int
    """Fencing token of the driver's lease: an actor that finds a higher one stops."""
    use_idle_cores: bool = False
    """Whether actors may use cores of their machine that nobody uses, beyond those that are reserved for them."""

    def lease(self, storage: Storage) -> Lease:
        """Return the driver's lease, which actors check before they write rows."""
        return Lease(storage, self.layout.lease_uri, self.lease_token)
