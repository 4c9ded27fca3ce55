"""What is sent to the cluster: this code, the job's config and a start script, and nothing else.

One verb with its config, in the form that can be sent: nothing in it refers to this machine, nothing is secret.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stylemill.config import digest, to_mapping, to_yaml
from stylemill.errors import ConfigError, config_errors_for
from stylemill.registry import is_reference
from stylemill.storage import resolve
from stylemill.storage.uri import scheme

PACKAGED_SUFFIXES = frozenset({".py", ".j2", ".css", ".js"})
"""Whatever else lies beside the code (notes, data, a file of credentials) stays here."""
CONFIG_NAME = "stylemill-job.yaml"
START_NAME = "stylemill-start.sh"


def entrypoint(verb: str) -> str:
    """Return the shell command that runs a verb in an unpacked package."""
    return f"exec sh ./{START_NAME} {verb} --config {CONFIG_NAME}"


@contextmanager
def staged_package(config_yaml: str, *, with_code: bool) -> Iterator[Path]:
    """Yield a folder to be sent; it is gone after the block.

    Args:
        config_yaml: the job's config.
        with_code: also put this installation's package there.
    """
    from stylemill.ray_internals import START_SCRIPT

    with TemporaryDirectory(prefix="stylemill-submit-") as name:
        folder = Path(name)
        if with_code:
            _copy_code(code_folder(), folder / code_folder().name)
        (folder / CONFIG_NAME).write_text(config_yaml, encoding="utf-8")
        (folder / START_NAME).write_text(START_SCRIPT, encoding="utf-8")
        yield folder


def code_folder() -> Path:
    """Return the folder of this installation's package ``stylemill``."""
    return Path(__file__).resolve().parents[1]


def _copy_code(source: Path, target: Path) -> None:
    for folder, subfolders, files in os.walk(source):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__"))]
        for name in files:
            if Path(name).suffix in PACKAGED_SUFFIXES and not name.startswith("."):
                copy = target / Path(folder).relative_to(source) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(folder) / name, copy)


LOCAL_SCHEMES = ("file", "local", "memory")
_SIGNED = re.compile(r"[?&][^=&]*(sig|signature|token|secret|credential|password|key)[^=&]*=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a job is to do."""

    verb: str
    """The verb with its subcommand: ``manifest verify``."""
    config: Any
    """The verb's config, with every location resolved."""
    base_id: str
    """Id of the first attempt; later ones append ``-2``, ``-3`` ..."""
    is_repeatable: bool
    """Whether a finished job is no reason not to run it once more: its input may have changed since."""
    driver_cpus: int = 0
    """CPUs to reserve for the job's own process; 0 leaves it on the cluster's head."""

    @property
    def out(self) -> str:
        """Where the results go, for people."""
        return str(getattr(self.config, "out", getattr(self.config, "uri", "")))

    def yaml(self) -> str:
        """Return the config as the job reads it."""
        return to_yaml(self.config)


def resolve_locations(config: Any, names: Sequence[str], *, shared_filesystem: bool) -> Any:
    """Return a config whose locations mean the same on every machine.

    Args:
        config: a verb's config.
        names: its fields that hold locations; ``judge.style_image`` is one of a nested config.
        shared_filesystem: local paths are fine, and become absolute.

    Raises:
        ConfigError: a location that the cluster cannot see, or one that carries a credential.
    """
    changes: dict[str, Any] = {}
    for name in names:
        outer, _, inner = name.partition(".")
        value = changes.get(outer, getattr(config, outer))
        if inner:
            changes[outer] = resolve_locations(value, [inner], shared_filesystem=shared_filesystem)
        elif value is None:
            continue
        elif isinstance(value, tuple):
            changes[name] = tuple(_resolved(name, uri, shared_filesystem) for uri in value)
        else:
            changes[name] = _resolved(name, value, shared_filesystem)
    return replace(config, **changes)


def _resolved(name: str, uri: str, shared_filesystem: bool) -> str:
    if is_reference(uri):
        return uri
    with config_errors_for(name):
        resolved = resolve(uri)
    if scheme(resolved) in LOCAL_SCHEMES and not shared_filesystem:
        cure = "give a URI such as s3://bucket/prefix, or --shared-filesystem if every machine there has this path"
        raise ConfigError(name, uri, "is a path of this machine, which the cluster cannot see", cure)
    if scheme(resolved) not in LOCAL_SCHEMES and _SIGNED.search(resolved):
        shown = resolved.partition("?")[0] + "?***"
        cure = "leave it out; the cluster's machines take credentials from their environment or role"
        raise ConfigError(
            name, shown, "carries a credential, which everyone with access to the cluster could read", cure
        )
    return resolved


def hashed_id(verb: str, config: Any, ignored: Sequence[str]) -> str:
    """Return an id that equal requests share.

    Args:
        verb: with its subcommand.
        config: with resolved locations.
        ignored: fields that say how, not what: resources and the like.
    """
    matters = {name: value for name, value in to_mapping(config).items() if name not in ignored}
    return job_id(verb, digest({"verb": verb, "config": matters})[:16])


def job_id(verb: str, name: str) -> str:
    """Return the id of a first attempt."""
    return f"stylemill-{verb.replace(' ', '-')}-{name}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What to do about a request, in view of the jobs that the cluster knows."""

    id: str
    """The job to submit, or the one that is there."""
    earlier: str | None = None
    """Newest earlier attempt, if there is one."""
    is_running: bool = False
    """``id`` runs or waits to run: there is nothing to submit."""
    is_done: bool = False
    """``id`` has finished: there is nothing to submit."""


def choose_attempt(base_id: str, jobs: Mapping[str, str], *, is_repeatable: bool) -> Attempt:
    """Decide whether to submit a request, and under which id.

    A job that runs is never doubled. One that failed or was stopped is followed by the next attempt, which resumes.
    One that finished is not run again, unless its verb may find something new to do.

    Args:
        base_id: id of the first attempt.
        jobs: id -> state: ``active``, ``done`` or ``ended`` (failed, stopped).
        is_repeatable: see ``JobRequest``.
    """
    pattern = re.compile(re.escape(base_id) + r"(?:-(\d+))?")
    numbers = {int(match[1] or 1): known for known in jobs if (match := pattern.fullmatch(known))}
    if not numbers:
        return Attempt(id=base_id)
    newest = numbers[max(numbers)]
    if jobs[newest] == "active":
        return Attempt(id=newest, is_running=True)
    if jobs[newest] == "done" and not is_repeatable:
        return Attempt(id=newest, is_done=True)
    return Attempt(id=f"{base_id}-{max(numbers) + 1}", earlier=newest)
