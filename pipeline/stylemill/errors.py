"""The shapes that failures take: user mistakes, bad samples, broken infrastructure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager

_LONGEST_SHOWN = 400
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def without_credentials(text: str) -> str:
    """Return text in which ``scheme://user:password@host`` has lost its credentials."""
    return _CREDENTIALS.sub("***@", text)


class StylemillError(Exception):
    """Root of every error that this project raises on purpose."""


class ConfigError(StylemillError):
    """A user's mistake, found before Ray starts.

    Args:
        field: name of the flag or config field at fault, without dashes (``style_image``).
        value: what the user gave; shown with ``repr`` (never pass a secret).
        problem: what is wrong with it, without a full stop.
        cure: what the user can do about it, without a full stop.
    """

    def __init__(self, field: str, value: object, problem: str, cure: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.cure = cure
        super().__init__(field, value, problem, cure)

    def __str__(self) -> str:
        shown = without_credentials(repr(self.value))
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}... ({len(shown):,} characters)"
        return without_credentials(" ".join(f"{self.field}={shown}: {self.problem}; {self.cure}".split()))


@contextmanager
def config_errors_for(
    field: str, *, value: object = None, cure: str | None = None, keep: Container[str] = ()
) -> Iterator[None]:
    """Raise the ConfigErrors of the block under another field: the one that the user set.

    Args:
        field: name of the field to report.
        value: what the user gave, where the error shows something derived from it.
        cure: replaces the cure of the error.
        keep: fields whose errors pass unchanged.
    """
    try:
        yield
    except ConfigError as error:
        if error.field in keep:
            raise
        shown = error.value if value is None else value
        raise ConfigError(field, shown, error.problem, cure or error.cure) from None


class ImageError(StylemillError):
    """One source could not be done: becomes a row with status ``failed``, never a failed job.

    Args:
        error_type: short CamelCase name for the manifest's ``error_type`` column (``Truncated``).
        message: one sentence with the figures that matter.
    """

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        self.message = message
        super().__init__(error_type, message)

    def __str__(self) -> str:
        return self.message


class NotAnImage(ImageError):
    """The source is by its content no image: becomes a row with status ``skipped`` and a reason."""


class StorageError(StylemillError):
    """Storage failed beyond the bounded retries: stops the job, which can be resumed."""


class ObjectNotFound(StorageError):
    """No object at this location."""


class AccessDenied(StorageError):
    """The store refuses this one object to these credentials."""


class PathConflict(StorageError):
    """The store cannot hold an object of this name: too long, or a file stands where a directory is needed."""


class TooManyFailures(StylemillError):
    """More samples failed than ``max_failed_fraction`` allows: stops the job."""


class TrainingError(StylemillError):
    """Training cannot go on: too many bad images, or the loss does not stay finite."""


class CheckpointError(StylemillError):
    """A checkpoint is missing, torn, or belongs to another run."""


class RegistryError(StylemillError):
    """A registry of styles is damaged: nothing is promoted or painted from what fails its checksum."""


class ClusterError(StylemillError):
    """The Ray cluster failed beyond its own retries: stops the job, which can be resumed."""


class RunConflict(StylemillError):
    """Another process holds this run, or committed it meanwhile."""
