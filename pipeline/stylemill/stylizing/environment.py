"""What changes output bytes and is not a setting: versions, the precision that ``auto`` stands for, kernels.

The first worker of a run writes it into the run's folder; all others, also after an upgrade or on other machines, use
the same or stop. Otherwise a library would hold results of both kinds.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from typing import Any

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.layout import RunLayout
from stylemill.storage import Storage

_PACKAGES = ("numpy", "pillow", "pillow-heif", "tifffile")
"""Packages that decode or encode."""
_CODECS = ("avif", "jpg_2000", "libjpeg_turbo", "libtiff", "littlecms2", "webp")
"""Libraries in Pillow."""
_SAME_VERSIONS = "install the same ones on all machines, or paint the rest in another run (--run-id)"


def agree_on_codecs(storage: Storage, layout: RunLayout) -> None:
    """Check that this process decodes and encodes with the versions with which the run began.

    Raises:
        ConfigError: it has others.
    """
    mine = codec_versions()
    agreed = _agree(storage, layout.environment_uri("codecs"), mine)
    _check_equal(layout.run_id, agreed, mine, "began with other versions", _SAME_VERSIONS)


def agree_on_precision(storage: Storage, layout: RunLayout, mine: str) -> str:
    """Return the precision with which the run began.

    Args:
        storage: where the run is.
        layout: of the run.
        mine: what the config means on this machine.

    Raises:
        ConfigError: this process has another torch or oneDNN.
    """
    versions = torch_versions()
    agreed = _agree(storage, layout.environment_uri("network"), {"precision": mine, **versions})
    precision = str(agreed.pop("precision", mine))
    _check_equal(layout.run_id, agreed, versions, "began with other versions", _SAME_VERSIONS)
    return precision


def agree_on_kernels(storage: Storage, layout: RunLayout, style: str, mine: list[str]) -> None:
    """Check that this machine runs a style's network with the kernels with which the run began.

    Args:
        storage: where the run is.
        layout: of the run.
        style: name of the style.
        mine: as ``Layers.kernels`` describes them.

    Raises:
        ConfigError: a kernel was replaced or compiled on one of the two machines and not on the other, or versions of
            stylemill compute differently.
    """
    kernels = {str(number): kernel for number, kernel in enumerate(mine)}
    cure = "paint on machines of one kind, all or none with a C compiler, by one version; or start another run"
    agreed = _agree(storage, layout.environment_uri(f"kernels-{style}"), kernels)
    _check_equal(layout.run_id, agreed, kernels, "began on a machine with other kernels", cure)


def codec_versions() -> dict[str, str]:
    """Return the versions of everything that decodes or encodes, by name; empty for what is absent."""
    from PIL import features

    found = {name: _version(name) for name in _PACKAGES}
    return found | {name: str(features.version(name) or "") for name in _CODECS}


def torch_versions() -> dict[str, str]:
    """Return the versions of torch and of the oneDNN in it; builds for CPUs and for GPUs have the same."""
    import torch

    built_with = re.search(r"(?:oneDNN|MKL-DNN) v([\d.]+)", torch.__config__.show())
    return {"torch": str(torch.__version__).partition("+")[0], "onednn": built_with[1] if built_with else ""}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def _agree(storage: Storage, uri: str, mine: Mapping[str, str]) -> dict[str, Any]:
    """Write a record unless one exists; return the one that is stored."""
    if storage.create_bytes(uri, json.dumps(mine, indent=1).encode()):
        return dict(mine)
    try:
        stored = json.loads(storage.read_bytes(uri))
        return {str(name): value for name, value in stored.items()}
    except (ValueError, AttributeError) as error:
        raise StorageError(f"{uri} is damaged ({error}); restore it, or paint in another run (--run-id)") from None


def _check_equal(run_id: str, agreed: Mapping[str, Any], mine: Mapping[str, str], problem: str, cure: str) -> None:
    names = [*agreed, *(name for name in mine if name not in agreed)]
    changes = [
        f"{name} {agreed.get(name) or 'none'} -> {mine.get(name) or 'none'}"
        for name in names
        if agreed.get(name) != mine.get(name)
    ]
    if changes:
        raise ConfigError("run_id", run_id, f"{problem}: {'; '.join(changes)}", cure)
