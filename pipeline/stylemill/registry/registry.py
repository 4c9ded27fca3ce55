"""Styles, their versions and their champions as plain files in any store, without a server.

    REGISTRY/registry.json                                  schema version
    REGISTRY/<style>/versions/<version>/style.safetensors   the model
    REGISTRY/<style>/versions/<version>/version.json        written after the model: the version exists
    REGISTRY/<style>/versions/<version>/deleted.json        the model was removed; version.json stays
    REGISTRY/<style>/promotions/<number>.json               created once each: the history, which is authoritative
    REGISTRY/<style>/champion.json                          a copy of the newest promotion, for people and other tools

A promotion is a compare-and-swap: a decision about champion N creates promotion N + 1, and the conditional create lets
exactly one process succeed. Any other process gets a RunConflict and has changed nothing.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from stylemill.errors import ConfigError, ObjectNotFound, PathConflict, RegistryError, RunConflict
from stylemill.registry.records import Promotion, PromotionKind, Version
from stylemill.storage import Storage, join, resolve
from stylemill.storage.json_records import RecordT, record_from_json, record_to_json
from stylemill.storage.user_errors import writing_output
from stylemill.style_file import read_header

SCHEMA_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def can_name_a_version(name: str) -> bool:
    """Return whether a text is a valid name of a style or a version in a registry."""
    return _NAME.fullmatch(name) is not None


class Registry:
    """Versions of styles and their champions; safe to share between processes. Use ``open`` or ``create``.

    Args:
        storage: gives access to the registry.
        root: resolved location of an existing registry.
    """

    def __init__(self, storage: Storage, root: str) -> None:
        self._storage = storage
        self.root = root

    @classmethod
    def open(cls, storage: Storage, uri: str) -> Self:
        """Return the registry at a location.

        Raises:
            ConfigError: there is no registry, it is damaged, or it has another schema.
        """
        root = resolve(uri)
        try:
            data = storage.read_bytes(join(root, "registry.json"))
        except (ObjectNotFound, PathConflict):
            cure = "check the location; `stylemill styles add` creates a new one"
            raise ConfigError("registry", uri, "holds no registry", cure) from None
        try:
            schema = json.loads(data)["schema_version"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError("registry", uri, "is damaged: registry.json cannot be read", "restore it") from None
        if schema != SCHEMA_VERSION:
            cure = "use the stylemill that wrote it, or another registry"
            raise ConfigError("registry", uri, f"has schema {schema}, this stylemill reads {SCHEMA_VERSION}", cure)
        return cls(storage, root)

    @classmethod
    def create(cls, storage: Storage, uri: str) -> Self:
        """Return the registry at a location, after creating it if there is none; raises as ``open``."""
        marker = json.dumps({"schema_version": SCHEMA_VERSION, "created_at": _now()}).encode()
        with writing_output(uri, "registry", only=PathConflict):
            storage.create_bytes(join(resolve(uri), "registry.json"), marker)
        return cls.open(storage, uri)

    def model_uri(self, style: str, version: str) -> str:
        """Return the location of a version's model file."""
        return join(self.root, style, "versions", version, "style.safetensors")

    def champion_uri(self, style: str) -> str:
        """Return the location of the copy of the newest promotion."""
        return join(self.root, style, "champion.json")

    def add(self, data: bytes, *, source_uri: str, note: str = "") -> Version:
        """Add a model file as a version of its style; adding the same file again changes nothing.

        Args:
            data: the whole file.
            source_uri: where it came from.
            note: a remark for people.

        Raises:
            ConfigError: the file is not a style model, its name or version cannot name a folder, or this version exists
                with another file.
        """
        header = read_header(data, source=source_uri)
        for kind, name in (("style", header.name), ("version", header.version)):
            if not can_name_a_version(name):
                cure = "use letters, digits, '.', '_' and '-'; train with --name"
                raise ConfigError("model", source_uri, f"has the {kind} {name!r}, which cannot name a folder", cure)
        version = Version(
            style=header.name,
            version=header.version,
            sha256=header.sha256,
            size_bytes=len(data),
            added_at=_now(),
            added_by=_who(),
            source_uri=source_uri,
            note=note,
        )
        if self._storage.exists(self._deleted_uri(version.style, version.version)):
            raise self._was_deleted(version.style, version.version)
        self._storage.create_bytes(self.model_uri(version.style, version.version), data)
        self._storage.create_bytes(self._version_uri(version.style, version.version), record_to_json(version))
        known = self._read_version(version.style, version.version)
        if known.sha256 != header.sha256:
            cure = "versions never change; train again for a new version"
            raise ConfigError("model", source_uri, f"is not the {known.style}@{known.version} of this registry", cure)
        self.check(known)
        return known

    def styles(self) -> list[str]:
        """Return the names of all styles."""
        return sorted({found.key.split("/")[0] for found in self._storage.list_objects(self.root) if "/" in found.key})

    def versions(self, style: str) -> list[Version]:
        """Return a style's versions that have not been deleted, oldest first."""
        root = join(self.root, style, "versions")
        keys = [found.key for found in self._storage.list_objects(root)]
        deleted = {key.split("/")[0] for key in keys if key.endswith("/deleted.json")}
        names = [key.split("/")[0] for key in keys if key.endswith("/version.json")]
        versions = [self._read_version(style, name) for name in names if name not in deleted]
        return sorted(versions, key=lambda version: (version.added_at, version.version))

    def version(self, style: str, version: str | None = None) -> Version:
        """Return one version of a style, by default its champion.

        Raises:
            ConfigError: the style or version does not exist, was deleted, or the style has no champion.
        """
        if version is None:
            champion = self.champion(style)
            if champion is None:
                cure = f"promote one: stylemill styles promote {style}@VERSION"
                if not self.versions(style):
                    cure = f"the registry holds {', '.join(self.styles()) or 'no style'}; add one: stylemill styles add"
                raise ConfigError("style", style, "has no champion", cure)
            version = champion.version
        name = f"{style}@{version}"
        if not (can_name_a_version(style) and can_name_a_version(version)):
            raise ConfigError("style", name, "is not a valid name", "use letters, digits, '.', '_' and '-'")
        if self._storage.exists(self._deleted_uri(style, version)):
            raise self._was_deleted(style, version)
        if not self._storage.exists(self._version_uri(style, version)):
            raise ConfigError("style", name, "is not in this registry", "see `stylemill styles list`")
        return self._read_version(style, version)

    def check(self, version: Version) -> None:
        """Check a version's model file.

        Raises:
            RegistryError: it is missing, or is not the file that was added.
        """
        uri = self.model_uri(version.style, version.version)
        cure = f"restore it from {version.source_uri}, or roll back: stylemill styles rollback {version.style}"
        try:
            data = self._storage.read_bytes(uri)
        except ObjectNotFound:
            raise RegistryError(f"{uri} is missing; {cure}") from None
        if hashlib.sha256(data).hexdigest() != version.sha256:
            raise RegistryError(f"{uri} fails its checksum; {cure}")

    def history(self, style: str) -> list[Promotion]:
        """Return all changes of a style's champion, oldest first."""
        root = join(self.root, style, "promotions")
        uris = [join(root, found.key) for found in self._storage.list_objects(root)]
        return [self._read(Promotion, uri) for uri in uris]

    def champion(self, style: str) -> Promotion | None:
        """Return the newest promotion of a style, None before the first."""
        root = join(self.root, style, "promotions")
        newest = max((found.key for found in self._storage.list_objects(root)), default=None)
        if newest is None:
            return None
        return self._read(Promotion, join(root, newest))

    def promote(
        self,
        style: str,
        version: str,
        *,
        reason: str,
        over: int | None,
        kind: PromotionKind = "promoted",
        evidence: Mapping[str, Any] | None = None,
    ) -> Promotion:
        """Make a version the champion, provided that the current champion is the one that the decision was about.

        Promoting the champion itself changes nothing, so a decision can be repeated after a kill.

        Args:
            style: name of the style.
            version: the new champion.
            reason: a sentence for people.
            over: number of the promotion that this one replaces; None if there is no champion.
            kind: recorded in the history.
            evidence: JSON-able figures behind the decision.

        Raises:
            ConfigError: there is no such version.
            RegistryError: its model file is missing or damaged.
            RunConflict: another process has changed the champion meanwhile; this call has changed nothing.
        """
        wanted = self.version(style, version)
        self.check(wanted)
        champion = self.champion(style)
        if champion is not None and champion.version == version:
            self._publish(champion)  # the process that promoted it may have been killed before this step
            return champion
        if (champion.number if champion else None) != over:
            raise self._changed_meanwhile(style, champion)
        promotion = Promotion(
            number=(over or 0) + 1,
            kind=kind,
            style=style,
            version=version,
            sha256=wanted.sha256,
            previous_version=champion.version if champion else None,
            at=_now(),
            by=_who(),
            reason=reason,
            evidence=dict(evidence or {}),
        )
        uri = join(self.root, style, "promotions", f"{promotion.number:08d}.json")
        if not self._storage.create_bytes(uri, record_to_json(promotion)):
            raise self._changed_meanwhile(style, self.champion(style))
        self._publish(promotion)
        if self._storage.exists(self._deleted_uri(style, version)):  # meanwhile, by another process
            self.rollback(style, reason=f"{version} was deleted while it was promoted")
            raise self._was_deleted(style, version)
        return promotion

    def rollback(self, style: str, *, reason: str, to: str | None = None) -> Promotion:
        """Make an earlier champion the champion again.

        Args:
            style: name of the style.
            reason: a sentence for people.
            to: its version; by default the newest earlier champion that still exists.

        Raises:
            ConfigError: there is no earlier champion, or ``to`` was deleted or never was the champion.
            RegistryError: its model file is missing or damaged.
            RunConflict: another process has changed the champion meanwhile.
        """
        history = self.history(style)
        if not history:
            raise ConfigError("style", style, "has no champion", "there is nothing to roll back")
        earlier = list(dict.fromkeys(p.version for p in reversed(history) if p.version != history[-1].version))
        if to is not None and to not in earlier:
            cure = "choose one of " + (", ".join(earlier) or "none: there is no earlier champion")
            raise ConfigError("style", f"{style}@{to}", "is not an earlier champion", cure)
        left = [version for version in earlier if not self._storage.exists(self._deleted_uri(style, version))]
        if to is None and not left:
            raise ConfigError("style", style, "has no earlier champion that still exists", "promote another version")
        target = to or left[0]
        return self.promote(style, target, reason=reason, over=history[-1].number, kind="rolled_back")

    def delete(self, style: str, version: str) -> Version:
        """Remove a version's model file; its record stays.

        Raises:
            ConfigError: there is no such version, or it is the champion.
        """
        found = self.version(style, version)
        self._refuse_champion(style, version)
        tombstone = json.dumps({"at": _now(), "by": _who()}).encode()
        self._storage.create_bytes(self._deleted_uri(style, version), tombstone)
        try:
            self._refuse_champion(style, version)  # another process may have promoted it meanwhile
        except ConfigError:
            self._storage.delete(self._deleted_uri(style, version))
            raise
        self._storage.delete(self.model_uri(style, version))
        return found

    def _refuse_champion(self, style: str, version: str) -> None:
        champion = self.champion(style)
        if champion is not None and champion.version == version:
            cure = "promote another version first"
            raise ConfigError("style", f"{style}@{version}", "is the champion", cure)

    def _publish(self, promotion: Promotion) -> None:
        """Write ``champion.json``; if a later promotion was published in the meantime, restore that one."""
        self._storage.write_bytes(self.champion_uri(promotion.style), record_to_json(promotion))
        newest = self.champion(promotion.style)
        if newest is not None and newest.number > promotion.number:
            self._storage.write_bytes(self.champion_uri(promotion.style), record_to_json(newest))

    def _changed_meanwhile(self, style: str, champion: Promotion | None) -> RunConflict:
        current = f"{champion.version}, {champion.kind} by {champion.by} at {champion.at}" if champion else "none"
        return RunConflict(f"the champion of {style} was changed meanwhile and is {current}; decide again")

    @staticmethod
    def _was_deleted(style: str, version: str) -> ConfigError:
        cure = f"choose another: stylemill styles show {style}"
        return ConfigError("style", f"{style}@{version}", "was deleted", cure)

    def _read_version(self, style: str, version: str) -> Version:
        return self._read(Version, self._version_uri(style, version))

    def _read(self, record_type: type[RecordT], uri: str) -> RecordT:
        cure = "restore it from a backup of the registry"
        return record_from_json(record_type, self._storage.read_bytes(uri), uri, cure=cure, error_type=RegistryError)

    def _version_uri(self, style: str, version: str) -> str:
        return join(self.root, style, "versions", version, "version.json")

    def _deleted_uri(self, style: str, version: str) -> str:
        return join(self.root, style, "versions", version, "deleted.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for this user
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
