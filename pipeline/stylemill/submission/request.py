"""A job request: one verb with its config, and the package that is sent to the cluster for it.

Nothing in a request depends on this machine and nothing in it is secret: locations are resolved, and paths of this
machine and locations with credentials are refused. The id of a request is a hash of what it does, so that submitting it
twice does not run it twice. The package holds the code, the config and a start script, and nothing else.
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

from stylemill.builtin import is_builtin
from stylemill.config import digest, to_mapping, to_yaml
from stylemill.errors import ConfigError, config_errors_for
from stylemill.registry import is_reference
from stylemill.storage import resolve
from stylemill.storage.uri import scheme

PACKAGED_SUFFIXES = frozenset({".py", ".j2", ".css", ".js", ".safetensors"})
"""Suffixes of code and of the networks that come with it; other files next to it (notes, credentials) are not sent."""
CONFIG_NAME = "stylemill-job.yaml"
START_NAME = "stylemill-start.sh"
LOCAL_SCHEMES = ("file", "local", "memory")
_SIGNED = re.compile(r"[?&][^=&]*(sig|signature|token|secret|credential|password|key)[^=&]*=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A verb to run as a job."""

    verb: str
    """The verb with its subcommand: ``manifest verify``."""
    config: Any
    """The verb's config, with all locations resolved."""
    base_id: str
    """Id of the first attempt; later ones append ``-2``, ``-3`` ..."""
    is_repeatable: bool
    """Whether it may run again after an equal job has finished: its input may have changed."""
    driver_cpus: int = 0
    """CPUs to reserve for the job's own process; with 0 it runs on the cluster's head."""

    @property
    def out(self) -> str:
        """Location of the results, for people."""
        return str(getattr(self.config, "out", getattr(self.config, "uri", "")))

    def yaml(self) -> str:
        """Return the config as the YAML that the job reads."""
        return to_yaml(self.config)


_CHOICES = {"loss_weights": ("auto", "hed", "torchvision"), "start": ("builtin", "scratch", "champion")}
"""Values of fields with locations that are not locations."""
_MODELS = ("model", "start", "add_to", "teacher")
"""Fields with locations of style models, which may be built-in ones."""


def resolve_locations(config: Any, names: Sequence[str], *, shared_filesystem: bool) -> Any:
    """Return a config whose locations mean the same on every machine.

    Args:
        config: a verb's config.
        names: the fields that hold locations; ``judge.style_image`` is a field of a nested config.
        shared_filesystem: allow local paths, which become absolute.

    Raises:
        ConfigError: the cluster cannot read a location, or a location carries a credential.
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
    if is_reference(uri) or uri in _CHOICES.get(name, ()) or (name in _MODELS and is_builtin(uri)):
        return uri
    with config_errors_for(name):
        resolved = resolve(uri)
    if scheme(resolved) in LOCAL_SCHEMES and not shared_filesystem:
        cure = "give a URI such as s3://bucket/prefix, or --shared-filesystem if all machines of the cluster have it"
        raise ConfigError(name, uri, "is a path of this machine, which the cluster cannot read", cure)
    if scheme(resolved) not in LOCAL_SCHEMES and _SIGNED.search(resolved):
        shown = resolved.partition("?")[0] + "?***"
        cure = "leave it out; the machines of the cluster take credentials from their environment or role"
        raise ConfigError(
            name, shown, "carries a credential, which everyone with access to the cluster could read", cure
        )
    return resolved


def hashed_id(verb: str, config: Any, ignored: Sequence[str]) -> str:
    """Return the id of a request; equal requests have equal ids.

    Args:
        verb: with its subcommand.
        config: with resolved locations.
        ignored: fields that do not change the result, such as resources.
    """
    relevant = {name: value for name, value in to_mapping(config).items() if name not in ignored}
    return job_id(verb, digest({"verb": verb, "config": relevant})[:16])


def job_id(verb: str, name: str) -> str:
    """Return the id of a first attempt."""
    return f"stylemill-{verb.replace(' ', '-')}-{name}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What to do with a request, given the jobs of the cluster."""

    id: str
    """The job to submit, or the job that exists."""
    earlier: str | None = None
    """The newest earlier attempt, if there is one."""
    is_running: bool = False
    """``id`` is running or waiting: there is nothing to submit."""
    is_done: bool = False
    """``id`` has finished: there is nothing to submit."""


def choose_attempt(base_id: str, jobs: Mapping[str, str], *, is_repeatable: bool) -> Attempt:
    """Decide whether to submit a request, and under which id.

    A running job is never duplicated. A failed or stopped job is followed by the next attempt, which resumes. A
    finished job is not run again, unless its verb may find new work.

    Args:
        base_id: id of the first attempt.
        jobs: id -> state: ``active``, ``done`` or ``ended`` (failed, stopped).
        is_repeatable: see ``JobRequest``.
    """
    pattern = re.compile(re.escape(base_id) + r"(?:-(\d+))?")
    numbers = {int(match[1] or 1): job for job in jobs if (match := pattern.fullmatch(job))}
    if not numbers:
        return Attempt(id=base_id)
    newest = numbers[max(numbers)]
    if jobs[newest] == "active":
        return Attempt(id=newest, is_running=True)
    if jobs[newest] == "done" and not is_repeatable:
        return Attempt(id=newest, is_done=True)
    return Attempt(id=f"{base_id}-{max(numbers) + 1}", earlier=newest)


def entrypoint(verb: str) -> str:
    """Return the shell command that runs a verb in an unpacked package."""
    return f"exec sh ./{START_NAME} {verb} --config {CONFIG_NAME}"


@contextmanager
def staged_package(config_yaml: str, *, with_code: bool) -> Iterator[Path]:
    """Yield the folder to send; it is removed after the block.

    Args:
        config_yaml: the job's config.
        with_code: whether the folder also holds this installation's package.
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
