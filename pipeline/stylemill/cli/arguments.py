"""From a verb's arguments to its config: flags over the file, ``--print-config``."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin

from stylemill.config import Leaf, from_flags, is_list, leaves, parse_yaml, strip_optional, to_yaml
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
        verb: as typed.
        description: one sentence for ``--help``.
        arguments: what follows the verb.
        positional: name of a field that may be given without its flag.
        presets: values by field, of which one set may be named to stand in for the defaults.
        followed_by: what comes after these arguments, for the usage line.

    Raises:
        ConfigError: anything wrong with the arguments or the file.
    """
    parser = make_parser(f"stylemill {verb}", description)
    required = [flag for flag in required_flags(config_type) if flag.partition(" ")[0] != f"--{positional}"]
    needed = [positional.upper(), *required] if positional else required
    parser.usage = " ".join(
        (f"stylemill {verb}", *needed, "[--config FILE.yaml] [--field value ...]", followed_by)
    ).rstrip()
    parser.add_argument("--config", metavar="FILE.yaml", help="read fields from this file; flags override it")
    parser.add_argument("--print-config", action="store_true", help="print the resulting config and stop")
    if presets:
        parser.add_argument("--preset", metavar="NAME", help=_preset_help(presets))
    add_flags(parser, config_type)
    if positional:
        parser.add_argument(
            f"{positional}_positional", nargs="?", metavar=positional.upper(), help=f"same as --{positional}"
        )
    try:
        flags = vars(parser.parse_args(arguments))
    except SystemExit:  # --help has printed
        return None
    if positional and flags[f"{positional}_positional"] is not None:
        flags[positional] = flags[f"{positional}_positional"]
    preset = _find_preset(presets, flags["preset"]) if presets else {}
    config = from_flags(config_type, flags, _read_file(flags["config"]), preset)
    if flags["print_config"]:
        print(to_yaml(config), end="")
        return None
    return config


def _preset_help(presets: Mapping[str, Mapping[str, Any]]) -> str:
    sets = "; ".join(
        f"{name} ({', '.join(f'{field} {value}' for field, value in values.items())})"
        for name, values in presets.items()
    )
    return f"values that stand in for the defaults; --config and flags override them: {sets}"


def _find_preset(presets: Mapping[str, Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    if name is not None and name not in presets:
        raise ConfigError("preset", name, "is no preset", "use one of " + ", ".join(presets))
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
    """One of the things that a verb can do."""

    does: str
    """What, in one sentence for ``--help``."""
    config: type[ConfigT]
    run: Callable[[ConfigT], int]
    """Does it and returns the exit code."""
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
    if not arguments or arguments[0] not in subcommands:
        given = arguments[0] if arguments else None
        raise ConfigError(verb, given, "is no subcommand", "use one of " + ", ".join(subcommands))
    name, chosen = arguments[0], subcommands[arguments[0]]
    config = parse(chosen.config, f"{verb} {name}", chosen.does, arguments[1:], positional=chosen.positional)
    return 0 if config is None else chosen.run(config)


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of printing the usage and leaving."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and suggest a flag in place of an unknown one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            cure = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
            raise ConfigError("command line", " ".join(unknown), f"is nothing that {self.prog} knows", cure)
        return found

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into one line."""
        raise ConfigError("command line", self.prog, message, f"see {self.prog} --help")


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return an argument parser that raises ConfigError and never abbreviates flags."""
    return _Parser(prog=prog, description=description, allow_abbrev=False)


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
