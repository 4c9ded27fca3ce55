"""Command-line arguments to configs: flags override ``--config``, which overrides presets and defaults.

``parse`` serves a verb with one config, ``run_subcommand`` a verb with subcommands (``manifest verify``). Every mistake
is raised as a ConfigError, so that it is printed as one line; argparse itself neither prints an error nor exits.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin

from stylemill.cli.output import COMMON_FLAGS, current
from stylemill.config import (
    FALSE,
    GIVE_IT,
    TRUE,
    Leaf,
    from_flags,
    is_list,
    leaves,
    parse_yaml,
    strip_optional,
    to_yaml,
)
from stylemill.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def parse(
    config_type: type[ConfigT],
    verb: str,
    description: str,
    arguments: Sequence[str],
    *,
    positional: str | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    followed_by: str = "",
) -> ConfigT | None:
    """Return a verb's config, or None after ``--print-config`` or ``--help`` has printed.

    Args:
        config_type: the config's dataclass.
        verb: as typed, with its subcommand.
        description: one sentence for ``--help``.
        arguments: what follows the verb.
        positional: name of a field that may be given without its flag; of a list, any number of values.
        presets: sets of values by field; ``--preset`` selects one that replaces the defaults.
        followed_by: what follows these arguments in the usage line.

    Raises:
        ConfigError: anything wrong with the arguments or the file.
    """
    parser = make_parser(f"stylemill {verb}", description)
    required = [flag for flag in required_flags(config_type) if flag.partition(" ")[0] != f"--{positional}"]
    takes_many = positional is not None and any(
        leaf.name == positional and is_list(leaf.annotation) for leaf in leaves(config_type)
    )
    many = "..." if takes_many else ""
    rest: Sequence[str] = ()
    needed = [positional.upper() + many, *required] if positional else required
    parser.usage = " ".join(
        (f"stylemill {verb}", *needed, "[--config FILE.yaml] [--field value ...]", followed_by)
    ).rstrip()
    parser.add_argument("--config", metavar="FILE.yaml", help="read fields from this file; flags override it")
    parser.add_argument("--print-config", action="store_true", help="print the resulting config and exit")
    if presets:
        parser.add_argument("--preset", metavar="NAME", help=_preset_help(presets))
    add_flags(parser, config_type)
    if positional:
        parser.add_argument(
            f"{positional}_positional",
            nargs="*" if takes_many else "?",
            metavar=positional.upper(),
            help=f"same as --{positional}",
        )
    try:
        if takes_many:
            # argparse itself takes words after -- for flags if positionals may stand between flags.
            end = arguments.index("--") if "--" in arguments else len(arguments)
            arguments, rest = _with_explicit_true(config_type, arguments[:end]), arguments[end + 1 :]
        flags = vars(parser.parse_args(arguments))
    except SystemExit:  # --help has printed
        return None
    if positional:
        given = flags[f"{positional}_positional"]
        if takes_many:
            flags[positional] = [*(given or ()), *rest, *(flags[positional] or ())] or None
        elif given is not None:
            flags[positional] = given
    preset = _find_preset(presets, flags["preset"]) if presets else {}
    try:
        config = from_flags(config_type, flags, _read_file(flags["config"]), preset)
    except ConfigError as error:
        if error.field == positional and error.cure == GIVE_IT:  # --photo is not how it is given
            raise wrong_use(f"{positional.upper()} is missing", f"{parser.usage.partition(' [')[0]}") from None
        raise
    if flags["print_config"]:
        print(to_yaml(config), end="")
        return None
    return config


def _with_explicit_true(config_type: type, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``=true`` at each switch whose next word is not its value: ``--replace a.jpg``."""
    switches = {leaf.flag for leaf in leaves(config_type) if strip_optional(leaf.annotation)[0] is bool}
    return [
        f"{word}=true" if word in switches and next_word.lower() not in TRUE | FALSE else word
        for word, next_word in zip(arguments, [*arguments[1:], ""], strict=False)
    ]


def _preset_help(presets: Mapping[str, Mapping[str, Any]]) -> str:
    sets = "; ".join(
        f"{name} ({', '.join(f'{field} {value}' for field, value in values.items())})"
        for name, values in presets.items()
    )
    return f"values that replace the defaults; --config and flags override them: {sets}"


def _find_preset(presets: Mapping[str, Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    if name is not None and name not in presets:
        raise ConfigError("preset", name, "is not a preset", "use one of " + ", ".join(presets))
    return presets[name] if name is not None else {}


def _read_file(path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError("config", path, f"cannot be read ({reason})", "give a YAML file") from None
    return parse_yaml(text, source=path)


@dataclass(frozen=True, kw_only=True)
class Subcommand(Generic[ConfigT]):
    """One subcommand of a verb."""

    does: str
    """What it does, in one sentence for ``--help``."""
    config: type[ConfigT]
    run: Callable[[ConfigT], int]
    """Runs it and returns the exit code."""
    positional: str | None = None
    """Field of the config that may be given without its flag."""


def run_subcommand(verb: str, subcommands: Mapping[str, Subcommand[Any]], arguments: Sequence[str]) -> int:
    """Run the subcommand that the first argument names with the config that the others give; return its exit code.

    ``--help`` and ``--print-config`` print and return 0.

    Raises:
        ConfigError: no subcommand, an unknown one, or anything wrong with its arguments.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: stylemill {verb} <{'|'.join(subcommands)}> ...\n")
        for name, subcommand in subcommands.items():
            print(f"  {name:<10} {subcommand.does}")
        return 0
    if not arguments:
        raise wrong_use(f"{verb} needs a subcommand: {', '.join(subcommands)}")
    name, *rest = arguments
    current().command = f"{verb} {name}"
    if name not in subcommands:
        raise unknown_command(name, subcommands, after=verb)
    chosen = subcommands[name]
    config = parse(chosen.config, f"{verb} {name}", chosen.does, rest, positional=chosen.positional)
    return 0 if config is None else chosen.run(config)


def wrong_use(problem: str, cure: str = "") -> ConfigError:
    """Return the error for a command line that is wrong as a whole, not in the value of one field."""
    return ConfigError("", None, problem, cure)


def unknown_command(given: str, known: Iterable[str], *, after: str = "") -> ConfigError:
    """Return the error for a word, or an option, where a command is expected.

    Args:
        given: the word.
        known: the commands that exist there.
        after: the command before it, if a subcommand is expected.
    """
    names = list(known)
    if given.startswith("-"):
        command = f"stylemill {after}".rstrip()
        return wrong_use(f"unknown option {given.partition('=')[0]}", f"options follow a command; see {command} --help")
    close = difflib.get_close_matches(given, names, n=1)
    cure = f"did you mean {close[0]!r}?" if close else "use one of " + ", ".join(names)
    return wrong_use(f"unknown command {f'{after} {given}'.lstrip()!r}", cure)


_COMMON_NAMES = [flag.rpartition(" ")[2] for flag in COMMON_FLAGS]


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of printing the usage and exiting."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; suggest a similar option for an unknown one."""
        many = any(action.nargs == "*" for action in self._actions)  # such values may stand before and after flags
        found, unknown = (self.parse_known_intermixed_args if many else self.parse_known_args)(args, namespace)
        if not unknown:
            return found
        first = unknown[0].partition("=")[0]
        if not first.startswith("-"):
            cure = f"see {self.prog} --help; put a pattern such as '*.jpg' in quotes"
            raise wrong_use(f"unexpected argument {unknown[0]!r}", cure)
        names = [option.lstrip("-") for option in (*self._option_string_actions, *_COMMON_NAMES)]
        close = difflib.get_close_matches(first.lstrip("-"), names, n=1)
        cure = f"did you mean --{close[0]}?" if close else f"see {self.prog} --help"
        raise wrong_use(f"unknown option {first}", cure)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as a ConfigError."""
        raise wrong_use(message, f"see {self.prog} --help")


class _Once(argparse.Action):
    """Stores the value of a required flag; a second one would silently replace the first."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            cure = "give it once; a pattern in quotes, such as 'photos/*.jpg', names many files"
            raise wrong_use(f"{option} is given twice", cure)
        setattr(namespace, self.dest, values)


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return an argument parser that raises ConfigError and does not accept abbreviated flags."""
    common = f"Flags of every command: {', '.join(COMMON_FLAGS)}; `stylemill --help` explains them."
    return _Parser(prog=prog, description=description, epilog=common, allow_abbrev=False)


def add_flags(parser: argparse.ArgumentParser, config_type: type) -> None:
    """Add one flag per field of ``config_type``: dashes for underscores, dots for nesting."""
    for leaf in leaves(config_type, with_docs=True):
        annotation, _ = strip_optional(leaf.annotation)
        options: dict[str, Any] = {"dest": leaf.name, "default": None, "help": _help(leaf)}
        if annotation is bool:
            options.update(nargs="?", const="true", metavar="true|false")
        elif get_origin(annotation) is Literal:
            options["metavar"] = "|".join(map(str, get_args(annotation)))
        else:
            options["metavar"] = leaf.path[-1].rstrip("_").upper()
        if is_list(leaf.annotation):
            options["action"] = "append"
        elif leaf.default is dataclasses.MISSING:
            options["action"] = _Once
        parser.add_argument(leaf.flag, **options)


def required_flags(config_type: type) -> list[str]:
    """Return the flags that have no default, each with the name of its value: ``--out OUT``."""
    needed = [leaf for leaf in leaves(config_type) if leaf.default is dataclasses.MISSING]
    return [f"{leaf.flag} {leaf.path[-1].rstrip('_').upper()}" for leaf in needed]


def _help(leaf: Leaf) -> str:
    text = leaf.help.replace("%", "%%")
    if leaf.default is dataclasses.MISSING:
        return f"{text} (required)"
    return text if leaf.default in (None, (), "") else f"{text} (default: {leaf.default})".replace("%%%%", "%%")
