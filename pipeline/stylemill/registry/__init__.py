"""Versions of styles in plain files, and which version of each is in use."""

from stylemill.registry.records import Promotion, Version
from stylemill.registry.reference import (
    REGISTRY_VARIABLE,
    StyleReference,
    find_version,
    is_reference,
    locate_model,
    registry_uri,
)
from stylemill.registry.registry import Registry, can_name_a_version

__all__ = [
    "REGISTRY_VARIABLE",
    "Promotion",
    "Registry",
    "StyleReference",
    "Version",
    "can_name_a_version",
    "find_version",
    "is_reference",
    "locate_model",
    "registry_uri",
]
