"""What a command prints, and for whom: text for people, one JSON object, or JSON events.

``main`` takes the flags of ``COMMON_FLAGS`` out of every command line and keeps one ``Output`` while the command runs.
Commands ``print`` text for people. The ``Output`` decides where it goes: to stdout; to stderr with ``--json`` and
``--json-lines``, which keep stdout for JSON; or nowhere with ``--quiet``. ``result`` adds fields to the JSON object.
"""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from stylemill.errors import ConfigError, without_credentials

COMMON_FLAGS = {
    "--quiet": "print warnings and errors only; commands that answer a question still answer it",
    "-v, --verbose": "log more, such as what is retried (-v: INFO, -vv: DEBUG); replaces STYLEMILL_LOG",
    "--json": "print one JSON object on stdout at the end; text goes to stderr",
    "--json-lines": "print events on stdout, one JSON object per line: start, progress, warning, result",
}
"""Flags that every command takes, anywhere on its command line, with their help."""
_ANSWERS = ("completion", "jobs", "models", "styles", "vote", "manifest summary")
"""Commands whose output is what they are run for; --quiet does not silence it, nor what these flags print."""
_ANSWER_FLAGS = frozenset(("-h", "--help", "--print-config", "--dry-run"))
PROGRESS_PERIOD_S = 1.0
"""Least time between two progress events."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The common flags of a command line."""

    form: Literal["text", "json", "json-lines"] = "text"
    is_quiet: bool = False
    log_level: str | None = None
    """INFO or DEBUG after -v or -vv."""


def split_common_flags(arguments: Sequence[str]) -> tuple[OutputOptions, list[str]]:
    """Return the common flags of a command line, and its other words in their order.

    Raises:
        ConfigError: two flags exclude each other.
    """
    verbose = {"-v": 1, "--verbose": 1, "-vv": 2}
    given = [word for word in arguments if word in ("--quiet", "--json", "--json-lines")]
    verbosity = sum(verbose.get(word, 0) for word in arguments)
    if {"--json", "--json-lines"} <= set(given):
        raise ConfigError("", None, "--json and --json-lines exclude each other", "give one of them")
    if "--quiet" in given and verbosity:
        raise ConfigError("", None, "--quiet and --verbose exclude each other", "give one of them")
    options = OutputOptions(
        form="json" if "--json" in given else "json-lines" if "--json-lines" in given else "text",
        is_quiet="--quiet" in given,
        log_level=(None, "INFO", "DEBUG")[min(verbosity, 2)],
    )
    return options, [word for word in arguments if word not in given and word not in verbose]


class Output:
    """The output of one command: its form, and the fields of its JSON object.

    Args:
        options: the common flags.
        command: as typed, without flags; ``run_subcommand`` adds the subcommand.
        stdout: where JSON goes.
    """

    def __init__(self, options: OutputOptions, command: str = "", stdout: TextIO | None = None) -> None:
        self.options = options
        self.command = command
        self._stdout = stdout
        self._fields: dict[str, Any] = {}
        self._start_s = time.monotonic()
        self._last_progress_s = -math.inf

    def result(self, **fields: Any) -> None:
        """Add fields to the JSON object; mappings of the same name, such as ``paths``, are merged."""
        for name, value in fields.items():
            earlier = self._fields.get(name)
            merge = isinstance(earlier, Mapping) and isinstance(value, Mapping)
            self._fields[name] = {**earlier, **value} if merge else value  # type: ignore[dict-item]

    def event(self, kind: str, **fields: Any) -> None:
        """Print an event, if the form is ``json-lines``; progress at most once a second."""
        if self.options.form != "json-lines":
            return
        if kind == "progress":
            if time.monotonic() - self._last_progress_s < PROGRESS_PERIOD_S:
                return
            self._last_progress_s = time.monotonic()
        self._write({"event": kind, **fields})

    def finish(self, exit_code: int, error: BaseException | None = None) -> None:
        """Print the JSON object, if there is to be one.

        Args:
            exit_code: of the process.
            error: what ended the command, if it failed.
        """
        if self.options.form == "text":
            return
        whole = {
            "command": self.command,
            "exit_code": exit_code,
            "seconds": round(time.monotonic() - self._start_s, 3),
            **self._fields,
        }
        if error is not None:
            whole["error"] = error_fields(error)
        self._write({"event": "result", **whole} if self.options.form == "json-lines" else whole)

    def _write(self, tree: Mapping[str, Any]) -> None:
        print(json.dumps(_plain(tree)), file=self._stdout, flush=True)


def error_fields(error: BaseException) -> dict[str, Any]:
    """Return an exception as JSON: type and message, and field, value, problem and cure of a ConfigError."""
    message = without_credentials(" ".join(str(error).split()))
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command resumes"
    fields: dict[str, Any] = {"type": type(error).__name__, "message": message}
    if isinstance(error, ConfigError):
        is_scalar = error.value is None or isinstance(error.value, bool | int | float)
        shown = error.value if is_scalar else without_credentials(str(error.value))
        fields |= {"field": error.field, "value": shown}
        fields |= {name: without_credentials(getattr(error, name)) for name in ("problem", "cure")}
    return fields


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: no infinity and no NaN, and text for what is neither number nor container."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)


class _Elsewhere(io.TextIOBase):
    """Takes the place of stdout: text goes to another stream, or nowhere; bytes still go to stdout."""

    def __init__(self, stdout: TextIO, text: TextIO | None) -> None:
        self._stdout, self._text = stdout, text

    def write(self, text: str, /) -> int:
        return len(text) if self._text is None else self._text.write(text)

    def flush(self) -> None:
        if self._text is not None:
            self._text.flush()

    @property
    def buffer(self) -> Any:
        """The bytes of stdout: an image that a command writes there is its result."""
        return self._stdout.buffer


class _WarningEvents(logging.Handler):
    """Makes an event of every warning that is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        current().event("warning", level=record.levelname, text=without_credentials(record.getMessage()))


_current = Output(OutputOptions())


def current() -> Output:
    """Return the output of the command that runs."""
    return _current


def result(**fields: Any) -> None:
    """Add fields to the JSON object of the command that runs: ``result(counts=..., paths={"images": uri})``."""
    _current.result(**fields)


@contextmanager
def output_of(options: OutputOptions, arguments: Sequence[str]) -> Iterator[Output]:
    """Keep the output of a command while the body runs, and send its text where the flags say.

    Args:
        options: the common flags.
        arguments: the command and its flags.
    """
    global _current  # noqa: PLW0603 (a process runs one command, and what it prints comes from everywhere)
    before = _current
    words = [word for word in arguments[:2] if not word.startswith("-")]
    _current = Output(options, words[0] if words else "", sys.stdout)
    is_answer = any(" ".join(words).startswith(name) for name in _ANSWERS) or bool(_ANSWER_FLAGS & set(arguments))
    handler = _WarningEvents(logging.WARNING)
    logging.getLogger("stylemill").addHandler(handler)
    try:
        _current.event("start", command=" ".join(words[:1]))
        if options.is_quiet and not is_answer:
            with redirect_stdout(_Elsewhere(sys.stdout, None)):
                yield _current
        elif options.form != "text":
            with redirect_stdout(_Elsewhere(sys.stdout, sys.stderr)):
                yield _current
        else:
            yield _current
    finally:
        logging.getLogger("stylemill").removeHandler(handler)
        _current = before


def print_problem(text: str) -> None:
    """Print a line about something that is wrong in what a command checked; --quiet does not silence it."""
    print(text, file=sys.stderr if _current.options.is_quiet else sys.stdout)
