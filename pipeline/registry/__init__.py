"""Versioned styles in plain files, and which version of each is in use."""

from pipeline.registry.records import Promotion, Version
from pipeline.registry.reference import (
    REGISTRY_VARIABLE,
    StyleReference,
    find_version,
    is_reference,
    locate_model,
    registry_uri,
)
from pipeline.registry.registry import Registry, can_name_a_version

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
