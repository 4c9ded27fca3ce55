"""``stylemill completion bash|zsh|fish``: print the script that completes commands, flags and values in a shell.

shtab writes the script from a tree of argparse parsers. The tree is built from the commands, their subcommands and
their config classes: by convention the config of ``demo-retrain`` is ``DemoRetrainCommand`` or
``DemoRetrainConfig``, in its module.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from stylemill.cli.arguments import add_flags, parse
from stylemill.cli.output import COMMON_FLAGS
from stylemill.config import is_list, leaves, strip_optional

TAKES_FILES = ("paint",)
"""Commands whose words without a flag are files."""


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Settings of ``completion``."""

    shell: Literal["bash", "zsh", "fish"]
    """The shell that reads the script."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    config = parse(
        CompletionConfig,
        "completion",
        "Print the script that completes commands and flags in a shell; docs/output.md says where to put it.",
        arguments,
        positional="shell",
    )
    if config is None:
        return 0
    import shtab

    print(shtab.complete(build_tree(), config.shell))
    return 0


def build_tree() -> argparse.ArgumentParser:
    """Return the parser of the whole command line, as far as completion needs it."""
    from stylemill.cli.main import VERBS

    root = _new("stylemill")
    verbs = root.add_subparsers()
    for verb, does in VERBS.items():
        module = importlib.import_module("stylemill.cli." + verb.replace("-", "_"))
        parser = verbs.add_parser(verb, help=_plain(does), allow_abbrev=False)
        subcommands = getattr(module, "SUBCOMMANDS", None)
        if subcommands is None:
            _add_config(parser, config_of(verb, module), _presets(module))
        else:
            _add_subcommands(parser, {name: (part.does, part.config) for name, part in subcommands.items()})
        if verb == "submit":
            _add_submittable(parser)
        if verb in ("completion", *TAKES_FILES):
            _add_words(parser, ("bash", "zsh", "fish") if verb == "completion" else None)
        _add_common(parser)
    _add_common(root)
    root.add_argument("--version", action="store_true", help="print the version")
    return root


def config_of(verb: str, module: Any) -> type:
    """Return the config class of a verb without subcommands."""
    name = "".join(word.capitalize() for word in verb.split("-"))
    found: type = getattr(module, f"{name}Command", None) or getattr(module, f"{name}Config")
    return found


def _presets(module: Any) -> Iterable[str]:
    presets = getattr(module, "PRESETS", {})
    return presets if isinstance(presets, Mapping) else ()


def _add_subcommands(parser: argparse.ArgumentParser, parts: Mapping[str, tuple[str, type]]) -> None:
    parsers = parser.add_subparsers()
    for name, (does, config_type) in parts.items():
        part = parsers.add_parser(name, help=_plain(does), allow_abbrev=False)
        _add_config(part, config_type)
        _add_words(part, None)
        _add_common(part)


def _add_submittable(parser: argparse.ArgumentParser) -> None:
    """Add the commands that may follow ``submit``, with their own flags."""
    from stylemill.cli.submit import SUBMITTABLE, named

    parsers = parser.add_subparsers()
    manifest: dict[str, tuple[str, type]] = {}
    for words, kind in SUBMITTABLE.items():
        verb, _, subcommand = words.partition(" ")
        config_type = named(kind.config_type)
        if subcommand:
            manifest[subcommand] = ("as a job", config_type)
            continue
        _add_config(
            parsers.add_parser(verb, help="as a job", allow_abbrev=False),
            config_type,
            named(kind.presets) if kind.presets else (),
        )
    _add_subcommands(parsers.add_parser("manifest", help="as a job"), manifest)


def _add_config(parser: argparse.ArgumentParser, config_type: type, presets: Iterable[str] = ()) -> None:
    """Add the flags of a config, with the values that each may take; text may be the name of a file."""
    import shtab

    add_flags(parser, config_type)
    actions = {action.dest: action for action in parser._actions}
    for leaf in leaves(config_type):
        annotation, _ = strip_optional(leaf.annotation)
        action = actions[leaf.name]
        action.help = _plain(action.help or "")
        if annotation is bool:
            action.choices = ("true", "false")
        elif get_origin(annotation) is Literal:
            action.choices = get_args(annotation)
        elif annotation is str or is_list(leaf.annotation):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    config = parser.add_argument("--config", help="read fields from this file")
    config.complete = shtab.FILE  # type: ignore[attr-defined]
    parser.add_argument("--print-config", action="store_true", help="print the resulting config and exit")
    if presets:
        parser.add_argument("--preset", choices=tuple(presets), help="values that replace the defaults")


def _add_words(parser: argparse.ArgumentParser, choices: Sequence[str] | None) -> None:
    """Add words without a flag: one of some choices, or files."""
    import shtab

    words = parser.add_argument("words", nargs="*", choices=choices)
    if choices is None:
        words.complete = shtab.FILE  # type: ignore[attr-defined]


def _add_common(parser: argparse.ArgumentParser) -> None:
    for names, does in COMMON_FLAGS.items():
        parser.add_argument(*names.split(", "), action="store_true", help=_plain(does))


def _new(prog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=prog, allow_abbrev=False)


def _plain(text: str) -> str:
    """Return the first clause of a help text: shells show it beside the flag on one line."""
    return text.partition("; ")[0].partition(" (")[0].rstrip(".")
