"""``stylemill styles add|list|show|promote|rollback|delete``: manage a registry of styles, versions and champions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stylemill.builtin import model_location
from stylemill.cli.arguments import Subcommand, run_subcommand
from stylemill.errors import ConfigError
from stylemill.registry import Promotion, Registry, StyleReference, Version, registry_uri
from stylemill.storage import Storage, StorageOptions

DIGITS = 12
"""Digits of a SHA-256 that are printed."""


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """The registry to use."""

    registry: str | None = None
    """Location of the registry; by default STYLEMILL_REGISTRY of the environment."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    @property
    def location(self) -> str:
        """Location of the registry.

        Raises:
            ConfigError: neither the config nor the environment has one.
        """
        return registry_uri(self.registry, "styles")

    def open(self) -> Registry:
        """Return the registry."""
        return Registry.open(Storage(self.storage), self.location)


@dataclass(frozen=True, kw_only=True)
class AddConfig(RegistryConfig):
    """Settings of ``styles add``."""

    model: str = ""
    """Location of the style model."""

    note: str = ""
    """Text that is stored with the version, for people."""

    promote: bool = False
    """Make it the champion at once."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model", None, "is required", "give the location of a style model")


@dataclass(frozen=True, kw_only=True)
class StyleConfig(RegistryConfig):
    """The style to use."""

    style: str = ""
    """STYLE, or STYLE@VERSION."""

    def __post_init__(self) -> None:
        if not self.style:
            raise ConfigError("style", None, "is required", "write STYLE or STYLE@VERSION")

    @property
    def reference(self) -> StyleReference:
        """The style, with its version if one is given."""
        return StyleReference.parse(self.style)

    @property
    def named_version(self) -> str:
        """The version.

        Raises:
            ConfigError: no version is given.
        """
        version = self.reference.version
        if version is None:
            raise ConfigError("style", self.style, "has no version", f"write {self.style}@VERSION")
        return version


@dataclass(frozen=True, kw_only=True)
class ChangeConfig(StyleConfig):
    """Settings of ``styles promote``."""

    reason: str = "by hand"
    """Text that is stored in the history."""


@dataclass(frozen=True, kw_only=True)
class RollbackConfig(ChangeConfig):
    """Settings of ``styles rollback``."""

    out: str | None = None
    """OUT of the style's `stylemill retrain`, to write the outcome there; without it the next firing writes it."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_subcommand("styles", SUBCOMMANDS, arguments)


def add(config: AddConfig) -> int:
    """Add a version of each style of a model; create the registry if it does not exist."""
    storage = Storage(config.storage)
    files = _read_styles(storage, model_location(config.model))
    registry = Registry.create(storage, config.location)
    for source, data in files.items():
        version = registry.add(data, source_uri=source, note=config.note)
        print(f"{version.style}@{version.version}: {version.size_bytes:,} bytes, sha256 {version.sha256[:DIGITS]}")
        if config.promote:
            champion = registry.champion(version.style)
            over = champion.number if champion else None
            _print_change(registry.promote(version.style, version.version, reason="added as champion", over=over))
    return 0


def _read_styles(storage: Storage, uri: str) -> dict[str, bytes]:
    """Return the file of each style at a location, by where it was found."""
    from stylemill.style_file import one_style, read_file, read_header, split_location, split_styles
    from stylemill.style_model import from_bytes

    location, style = split_location(uri)
    data = read_file(storage, location)
    if style is not None:
        found = {uri: one_style(data, style, source=location)}
    else:
        files = split_styles(data, source=uri)
        several = len(files) > 1
        found = {f"{uri}#{read_header(file, source=uri).name}" if several else uri: file for file in files}
    for source, file in found.items():
        from_bytes(file, source=source)  # fails if the weights do not fit the network
    return found


def list_styles(config: RegistryConfig) -> int:
    """Print one line for each style."""
    registry = config.open()
    names = registry.styles()
    if not names:
        print(f"{registry.root} has no styles")
        return 0
    width = max(map(len, [*names, "STYLE"]))
    print(f"{'STYLE':<{width}}  {'CHAMPION':<14}  {'SINCE (UTC)':<16}  VERSIONS")
    for name in names:
        champion = registry.champion(name)
        version, since = (champion.version, _minute(champion.at)) if champion else ("none", "")
        print(f"{name:<{width}}  {version:<14}  {since:<16}  {len(registry.versions(name))}")
    return 0


def show(config: StyleConfig) -> int:
    """Print a style's versions and its history."""
    registry, style = config.open(), config.reference.style
    history, versions = registry.history(style), registry.versions(style)
    if not versions and not history:
        raise ConfigError("style", style, "is not in this registry", "see `stylemill styles list`")
    champion = history[-1].version if history else None
    for version in versions:
        print(_version_line(version, is_champion=version.version == champion))
    for promotion in history:
        print(_promotion_line(promotion))
    return 0


def _version_line(version: Version, *, is_champion: bool) -> str:
    note = f"  {version.note}" if version.note else ""
    mark = "*" if is_champion else " "
    added = f"added {_minute(version.added_at)} by {version.added_by}"
    return f"{mark} {version.style}@{version.version}  sha256 {version.sha256[:DIGITS]}  {added}{note}"


def _promotion_line(promotion: Promotion) -> str:
    change = f"{promotion.previous_version or 'none'} -> {promotion.version}"
    kind = promotion.kind.replace("_", " ")
    return f"  {promotion.number:>3}. {_minute(promotion.at)} {kind}: {change} by {promotion.by}: {promotion.reason}"


def promote(config: ChangeConfig) -> int:
    """Make a version the champion."""
    version = config.named_version
    registry, style = config.open(), config.reference.style
    champion = registry.champion(style)
    over = champion.number if champion else None
    if champion is not None and champion.version == version:
        print(f"{style}@{version} is the champion already")
    _print_change(registry.promote(style, version, reason=config.reason, over=over))
    return 0


def rollback(config: RollbackConfig) -> int:
    """Make an earlier champion the champion again."""
    from stylemill.retraining.firing import roll_back

    style, to = config.reference.style, config.reference.version
    outcome = roll_back(Storage(config.storage), config.open(), style, reason=config.reason, to=to, out=config.out)
    print(f"champion of {style}: {outcome.previous_champion} -> {outcome.champion}")
    return 0


def delete(config: StyleConfig) -> int:
    """Delete the model of a version."""
    removed = config.open().delete(config.reference.style, config.named_version)
    print(f"{removed.style}@{removed.version} was deleted; its record and history remain")
    return 0


def _print_change(promotion: Promotion) -> None:
    print(f"champion of {promotion.style}: {promotion.previous_version or 'none'} -> {promotion.version}")


def _minute(at: str) -> str:
    """Return the UTC time of a record to the minute."""
    return at[:16].replace("T", " ")


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "add": Subcommand(
        does="add a trained model as a version of its style", config=AddConfig, run=add, positional="model"
    ),
    "list": Subcommand(does="list the styles, their versions and champions", config=RegistryConfig, run=list_styles),
    "show": Subcommand(
        does="show a style's versions and the history of its champions",
        config=StyleConfig,
        run=show,
        positional="style",
    ),
    "promote": Subcommand(
        does="make a version the champion: STYLE@VERSION", config=ChangeConfig, run=promote, positional="style"
    ),
    "rollback": Subcommand(
        does="make an earlier champion the champion again: STYLE or STYLE@VERSION",
        config=RollbackConfig,
        run=rollback,
        positional="style",
    ),
    "delete": Subcommand(
        does="delete the model of a version that is not the champion: STYLE@VERSION",
        config=StyleConfig,
        run=delete,
        positional="style",
    ),
}
