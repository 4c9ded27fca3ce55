"""References ``registry:<style>[@version]``, accepted wherever a config takes a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from stylemill.builtin import model_location
from stylemill.errors import ConfigError
from stylemill.registry.records import Version
from stylemill.registry.registry import Registry
from stylemill.storage import Storage, resolve

PREFIX = "registry:"
REGISTRY_VARIABLE = "STYLEMILL_REGISTRY"


@dataclass(frozen=True, kw_only=True)
class StyleReference:
    """A style of a registry, optionally with a version."""

    style: str
    version: str | None
    """None means the champion."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``STYLE`` or ``STYLE@VERSION``, with or without ``registry:`` before it.

        Raises:
            ConfigError: the style or the version is empty.
        """
        style, separator, version = text.removeprefix(PREFIX).partition("@")
        if not style or (separator and not version):
            raise ConfigError("style", text, "does not name a style", "write STYLE or STYLE@VERSION")
        return cls(style=style, version=version or None)


def is_reference(uri: str) -> bool:
    """Return whether a model's location is a reference to a registry."""
    return uri.startswith(PREFIX)


def locate_model(storage: Storage, uri: str, registry: str | None) -> str:
    """Return the resolved location of a model: the file that a reference names, or the location itself.

    Args:
        storage: gives access to the registry.
        uri: a location, ``registry:<style>[@version]``, or ``builtin``.
        registry: location of the registry; None takes the environment variable ``STYLEMILL_REGISTRY``.

    Raises:
        ConfigError: no registry is given, there is none, or it has no such style or version.
        RegistryError: the model file is missing or damaged.
    """
    if not is_reference(uri):
        return model_location(uri)
    opened, version = _find(storage, uri, registry)
    opened.check(version)
    return resolve(opened.model_uri(version.style, version.version))


def find_version(storage: Storage, uri: str, registry: str | None) -> Version:
    """Return the version that ``registry:<style>[@version]`` names.

    Args:
        storage: gives access to the registry.
        uri: the reference.
        registry: location of the registry; None takes the environment variable ``STYLEMILL_REGISTRY``.

    Raises:
        ConfigError: no registry is given, there is none, or it has no such style or version.
    """
    return _find(storage, uri, registry)[1]


def _find(storage: Storage, uri: str, registry: str | None) -> tuple[Registry, Version]:
    root, reference = registry_uri(registry, uri), StyleReference.parse(uri)
    opened = Registry.open(storage, root)
    return opened, opened.version(reference.style, reference.version)


def registry_uri(registry: str | None, needed_for: str) -> str:
    """Return the location of the registry from a config, or else from the environment.

    Args:
        registry: field of the config.
        needed_for: what the registry is needed for, for the message.

    Raises:
        ConfigError: neither is set.
    """
    found = registry or os.environ.get(REGISTRY_VARIABLE)
    if not found:
        cure = f"give --registry URI or set {REGISTRY_VARIABLE}"
        raise ConfigError("registry", None, f"is needed for {needed_for}", cure)
    return found
