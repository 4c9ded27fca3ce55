"""Pages that are made from the code: one for each command, an overview, and the Python API.

A command's flags, defaults and help come from its config classes, as in ``--help``. Needs neither torch nor Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import stylemill
from stylemill.cli import main as command_line
from stylemill.cli.arguments import Subcommand
from stylemill.config import Leaf, is_list, leaves, strip_optional

VERBS = command_line.VERBS

EXIT_CODES = {
    command_line.DONE: "done",
    command_line.FAILED: "failed; the same command resumes",
    command_line.WRONG_USE: "wrong use: one line on stderr names the field, the value and the cure",
    command_line.TOO_MANY_FAILED: "done, but more than `max_failed_fraction` of the sources failed",
    command_line.INTERRUPTED: "interrupted by Ctrl-C; the same command resumes",
}

ENVIRONMENT = {
    "STYLEMILL_LOG": "how much is logged: `DEBUG`, `INFO`, `WARNING` (default) or `ERROR`",
    "STYLEMILL_REGISTRY": "location of the registry, where `--registry` is not given",
    "STYLEMILL_WEBHOOK": "URL that `retrain` tells about every decision",
    "STYLEMILL_WEBHOOK_SECRET": "key with which these messages are signed",
    "STYLEMILL_PYTHON": "interpreter that runs a submitted job, in the environment of the cluster",
    "AWS_ACCESS_KEY_ID": "credentials for `s3://`, together with `AWS_SECRET_ACCESS_KEY`; or the machine's role",
    "RAY_ADDRESS": "cluster that `train`, `stylize` and `retrain` join instead of starting Ray on this machine",
    "RAY_API_SERVER_ADDRESS": "cluster of `submit` and `jobs`, where `--address` is not given",
    "RAY_AUTH_MODE": "`token` if the cluster requires a token, `disabled` if it has none",
}
"""Environment variables that users set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """What a command, or one of its subcommands, accepts."""

    command: str
    does: str
    config: type
    positional: str | None = None
    presets: Mapping[str, Mapping[str, Any]] | None = None


def pages() -> dict[str, str]:
    """Return the text of each generated page by its place in the site."""
    return {
        "reference/index.md": _overview(),
        "reference/api.md": _api(),
        **{f"reference/{verb}.md": command_page(verb) for verb in VERBS},
    }


def command_page(verb: str) -> str:
    """Return the page about one command."""
    lines = [f"# stylemill {verb}", "", VERBS[verb].capitalize() + ".", ""]
    found = list(accepted(verb))
    if not found:
        return "\n".join([*lines, "```text", _help_text(verb), "```", ""])
    for flags in found:
        if flags.command != verb:
            lines += [f"## {flags.command}", "", flags.does.rstrip(".") + ".", ""]
        lines += [f"```sh\n{_usage(flags)}\n```", "", *_table(flags), ""]
        if flags.presets:
            lines += ["`--preset NAME` replaces defaults; flags override it.", "", "| preset | values |", "| --- | --- |"]
            lines += [
                f"| `{name}` | {', '.join(f'`{_flag(field)} {value}`' for field, value in values.items())} |"
                for name, values in flags.presets.items()
            ]
            lines.append("")
    return "\n".join(lines)


def accepted(verb: str) -> Iterator[Flags]:
    """Yield what a command accepts, its subcommands in order; nothing if it has no config class.

    A command with one config tells it to ``arguments.parse``, in its first statement. Here a function in its place takes
    it down and answers as after ``--help``: with None, after which every command returns.
    """
    module = importlib.import_module("stylemill.cli." + verb.replace("-", "_"))
    subcommands: dict[str, Subcommand[Any]] = getattr(module, "SUBCOMMANDS", {})
    for name, one in subcommands.items():
        yield Flags(command=f"{verb} {name}", does=one.does, config=one.config, positional=one.positional)
    if subcommands or not hasattr(module, "parse"):
        return
    taken: list[Flags] = []

    def take_down(config: type, name: str, does: str, _arguments: object, **options: Any) -> None:
        known = {key: options[key] for key in ("positional", "presets") if key in options}
        taken.append(Flags(command=name, does=does, config=config, **known))

    original = module.parse
    module.parse = take_down  # type: ignore[attr-defined]
    try:
        module.main([])
    finally:
        module.parse = original  # type: ignore[attr-defined]
    yield from taken


def _overview() -> str:
    lines = [
        "# Commands",
        "",
        "`stylemill COMMAND [--config FILE.yaml] [--field value ...]`. Flags override the file, which overrides a preset.",
        "`--print-config` prints the result as YAML, which `--config` reads. A location is a path or an fsspec URI.",
        "",
        "| command | what it does |",
        "| --- | --- |",
        *(f"| [{verb}]({verb}.md) | {_cell(text)} |" for verb, text in VERBS.items()),
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "| ---: | --- |",
        *(f"| {code} | {text} |" for code, text in EXIT_CODES.items()),
        "",
        "`stylemill-job`, for schedulers that repeat a job after any other code, returns 0 and a line that begins with",
        f"`{command_line.ALERT}` in place of code {command_line.TOO_MANY_FAILED}.",
        "",
        "## Environment variables",
        "",
        "| variable | meaning |",
        "| --- | --- |",
        *(f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()),
        "",
    ]
    return "\n".join(lines)


def _api() -> str:
    """Return the page about the public names of the package; mkdocstrings fills it in from the docstrings."""
    public = [name for name in getattr(stylemill, "__all__", []) if not name.startswith("_")]
    lines = ["# Python API", "", "Everything that `stylemill` offers to programs. It is typed.", ""]
    lines += [f"::: stylemill.{name}\n" for name in public]
    return "\n".join([*lines, "::: stylemill.errors\n    options:\n      show_root_full_path: true\n"])


def _table(flags: Flags) -> list[str]:
    rows = [_row(leaf, flags.positional) for leaf in leaves(flags.config, with_docs=True)]
    head = ["| flag | default | meaning |", "| --- | --- | --- |"]
    return ['<div class="flags" markdown>', "", *head, *rows, "", "</div>"]  # site.css stacks them on phones


def _row(leaf: Leaf, positional: str | None) -> str:
    annotation, _ = strip_optional(leaf.annotation)
    meaning = _cell(leaf.help)
    if get_origin(annotation) is Literal:
        meaning += " One of " + ", ".join(f"`{choice}`" for choice in get_args(annotation)) + "."
    if is_list(leaf.annotation):
        meaning += " May be given several times."
    if leaf.name == positional:
        meaning += f" Also as the argument `{positional.upper()}`."
    return f"| `{leaf.flag}` | {_default(leaf)} | {meaning} |"


def _default(leaf: Leaf) -> str:
    if leaf.default is dataclasses.MISSING:
        return "*required*"
    if leaf.default in (None, (), ""):
        return ""
    shown = leaf.default
    if isinstance(shown, bool):
        shown = str(shown).lower()
    elif isinstance(shown, tuple):
        shown = " ".join(map(str, shown))
    return f"`{shown}`"


def _usage(flags: Flags) -> str:
    required = [leaf for leaf in leaves(flags.config) if leaf.default is dataclasses.MISSING]
    words = [
        _value(leaf) if leaf.name == flags.positional else f"{leaf.flag} {_value(leaf)}"
        for leaf in sorted(required, key=lambda leaf: leaf.name != flags.positional)
    ]
    return " ".join(["stylemill", flags.command, *words, "[--config FILE.yaml] [--field value ...]"])


def _value(leaf: Leaf) -> str:
    return leaf.path[-1].rstrip("_").upper()


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _cell(text: str) -> str:
    """Return a docstring as one cell of a table."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;").split())


def _help_text(verb: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command_line.main([verb, "--help"])
    return printed.getvalue().strip()
