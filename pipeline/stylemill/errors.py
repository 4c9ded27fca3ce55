"""The project's exceptions: mistakes of the user, images that fail, infrastructure that fails."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager

_MAX_VALUE_LENGTH = 400
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def without_credentials(text: str) -> str:
    """Return text in which the credentials of ``scheme://user:password@host`` are replaced by ``***``."""
    return _CREDENTIALS.sub("***@", text)


class StylemillError(Exception):
    """Base class of every error that this project raises on purpose."""


class ConfigError(StylemillError):
    """A user's mistake, found before Ray starts; printed as one line.

    A value is shown with its field: ``quality='high': is not a whole number; write a whole number``. Without a value
    the flag is the subject: ``--model is required; ...``. Without a field the problem is the whole sentence:
    ``unknown option --colour; ...``.

    Args:
        field: name of the flag or config field at fault, without dashes (``style_image``); empty if the command line
            itself is wrong.
        value: what the user gave, shown with ``repr`` (never pass a secret); None if nothing was given.
        problem: what is wrong, without a full stop: ``is not a size``.
        cure: what the user can do about it, without a full stop; empty if ``problem`` says it.
    """

    def __init__(self, field: str, value: object, problem: str, cure: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.cure = cure
        super().__init__(field, value, problem, cure)

    def __str__(self) -> str:
        text = self._subject() + self.problem
        if self.cure:
            text += f"; {self.cure}"
        return without_credentials(" ".join(text.split()))

    def _subject(self) -> str:
        if not self.field:
            return ""
        if self.value is None:
            return f"--{self.field.replace('_', '-')} "
        shown = without_credentials(repr(self.value))
        if len(shown) > _MAX_VALUE_LENGTH:
            shown = f"{shown[:_MAX_VALUE_LENGTH]}... ({len(shown):,} characters)"
        return f"{self.field}={shown}: "


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
    """One source cannot be processed: it becomes a row with status ``failed`` and never fails the job.

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
    """The content of the source is not an image: it becomes a row with status ``skipped`` and a reason."""


class StorageError(StylemillError):
    """Storage failed beyond the bounded retries: the job stops and can be resumed."""


class ObjectNotFound(StorageError):
    """There is no object at this location."""


class AccessDenied(StorageError):
    """The store refuses access to this object with these credentials."""


class RedirectLoop(AccessDenied):
    """A location of the web redirects without an end."""


class Unreachable(StorageError):
    """A host of the web gives no answer, or only errors of its own, while others answer: not a fault of ours."""


class PathConflict(StorageError):
    """The store cannot hold an object of this name: it is too long, or a file exists where a directory is needed."""


class NothingPainted(StylemillError):
    """A run is done and committed, and there was not one image in its input: repeating it changes nothing."""


class TooManyFailures(StylemillError):
    """More samples failed than ``max_failed_fraction`` allows: the job stops."""


class TrainingError(StylemillError):
    """Training cannot continue: too many images are bad, or the loss does not stay finite."""


class CheckpointError(StylemillError):
    """A checkpoint is missing, incomplete, or belongs to another run."""


class RegistryError(StylemillError):
    """A registry of styles is damaged: nothing that fails its checksum is promoted or used to paint."""


class ClusterError(StylemillError):
    """The Ray cluster failed beyond its own retries: the job stops and can be resumed."""


class RunConflict(StylemillError):
    """Another process holds this run, or has committed it in the meantime."""
