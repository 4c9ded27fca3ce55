"""Frozen dataclasses <-> YAML files and command-line flags.

A config is a frozen keyword-only dataclass beside its owner, each field followed by a docstring that becomes the
flag's help. YAML scalars are read as plain strings and typed by the field, exactly as flags are: so ``1:4`` stays
text, ``1e-3`` is a number, and a mistake in a file reads like a mistake in a flag. argparse does the parsing; only the
mapping from dataclasses is written here, because the ready-made mappers miss dashes, repeated list flags and
one-line errors.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

import yaml

from stylemill.checks import check_no_credential
from stylemill.errors import ConfigError

ConfigT = TypeVar("ConfigT")

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_NONE = {"", "null", "none", "~"}


class _PlainLoader(yaml.SafeLoader):
    """YAML whose scalars all stay strings (the field decides what they mean), without aliases or repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (replaces the parent's table)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few lines of them are gigabytes once they are followed."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias; write the value itself", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice, of which YAML's own loader drops the first."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


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


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One settable value: where it sits in the config, what users call it, its type, default and help."""

    path: tuple[str, ...]
    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def inline(group_type: type[ConfigT]) -> ConfigT:
    """Return a field whose own fields appear without a prefix in flags and files: no ``encode.``."""
    return dataclasses.field(default_factory=group_type, metadata={"inline": True})


def field_docs(config_type: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, inherited ones included."""
    docs: dict[str, str] = {}
    for owner in reversed(config_type.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _leaves(
    config_type: type, path: tuple[str, ...] = (), prefix: str = "", with_docs: bool = False
) -> Iterator[_Leaf]:
    hints = typing.get_type_hints(config_type)
    docs = field_docs(config_type) if with_docs else {}
    for field in dataclasses.fields(config_type):
        annotation = hints[field.name]
        here = (*path, field.name)
        if _is_group(annotation):
            inner = prefix if field.metadata.get("inline") else f"{prefix}{field.name}."
            yield from _leaves(annotation, here, inner, with_docs)
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        # A trailing underscore keeps a field apart from a word of Python (from_) and is nothing to users.
        name = prefix + field.name.rstrip("_")
        yield _Leaf(here, name, annotation, default, docs.get(field.name, ""))


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _strip_optional(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members[0], len(members) < len(get_args(annotation))
    return annotation, False


def _is_list(annotation: Any) -> bool:
    return get_origin(_strip_optional(annotation)[0]) is tuple


def _convert(leaf: _Leaf, value: Any) -> Any:
    """Return ``value`` (a string, or a list of strings) as the leaf's type; raise ConfigError otherwise."""
    annotation, optional = _strip_optional(leaf.annotation)
    if value is None or (optional and isinstance(value, str) and value.strip().lower() in _NONE):
        if optional:
            return None
        raise ConfigError(leaf.name, value, "a value is missing", f"give one with {leaf.flag}")
    if get_origin(annotation) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise ConfigError(leaf.name, value, "is not a list of strings", "write one value or a YAML list")
        return tuple(items)
    if not isinstance(value, str):
        raise ConfigError(leaf.name, value, "is not a single value", f"write one, as for {leaf.flag}")
    return _convert_scalar(leaf.name, annotation, value)


def _convert_scalar(name: str, annotation: Any, text: str) -> Any:
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if text not in choices:
            raise ConfigError(name, text, "is not a choice", "use one of " + ", ".join(map(str, choices)))
        return text
    if annotation is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(name, text, "is neither true nor false", "write true or false")
        return text.lower() in _TRUE
    if annotation in (int, float):
        # YAML writes infinity and not-a-number with a dot.
        plain = re.sub(r"(?i)^([-+]?)\.(inf|nan)$", r"\1\2", text) if annotation is float else text
        try:
            return annotation(plain.replace("_", ""))
        except ValueError:
            kind = "a whole number" if annotation is int else "a number"
            raise ConfigError(name, text, f"is not {kind}", f"write {kind}") from None
    if annotation is str:
        return text
    raise TypeError(f"{name}: fields of type {annotation!r} are not supported in a config")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a YAML mapping as values by dotted name, all scalars as strings."""
    values: dict[str, Any] = {}
    for raw_name, value in tree.items():
        name = prefix + str(raw_name).replace("-", "_")
        found = _flatten(value, name + ".") if isinstance(value, Mapping) else {name: _stringify(value)}
        for twice in found.keys() & values.keys():
            raise ConfigError(twice, found[twice], "stands twice in the file", "keep one of them")
        values.update(found)
    return values


def _read_tree(config_type: type, tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the typed values of a YAML mapping by path; raise ConfigError at the first unknown field."""
    leaves = {leaf.name: leaf for leaf in _leaves(config_type)}
    values = _flatten(tree)
    for name, value in list(values.items()):
        if name not in leaves:
            inside = [leaf[len(name) + 1 :] for leaf in leaves if leaf.startswith(f"{name}.")]
            if inside and value in (None, ""):  # a group whose fields are all commented out
                del values[name]
                continue
            if inside:
                raise ConfigError(name, value, "is a group of fields", f"write below it, indented: {', '.join(inside)}")
            close = difflib.get_close_matches(name, leaves, n=1)
            cure = f"did you mean {close[0]}?" if close else "use one of " + ", ".join(leaves)
            raise ConfigError(name, value, "is no field here", cure)
    return {leaves[name].path: _convert(leaves[name], value) for name, value in values.items()}


def _build(config_type: type[ConfigT], values: Mapping[tuple[str, ...], Any], path: tuple[str, ...] = ()) -> ConfigT:
    arguments: dict[str, Any] = {}
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):  # type: ignore[arg-type]
        here = (*path, field.name)
        if _is_group(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, here)
        elif here in values:
            arguments[field.name] = values[here]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            flag = "--" + field.name.replace("_", "-")
            raise ConfigError(field.name, None, "is required", f"give {flag}, or the field in --config")
    return config_type(**arguments)


def from_mapping(config_type: type[ConfigT], tree: Mapping[str, Any]) -> ConfigT:
    """Build a config from a mapping as YAML gives it (scalars as strings or plain values).

    Raises:
        ConfigError: an unknown field, a value of the wrong type, a missing required field.
    """
    return from_flags(config_type, {}, tree)


def _stringify(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_stringify(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    # A mapping inside a list is no value of any field: left as it is, it is refused with the field's name.
    return value if value is None or isinstance(value, str | Mapping) else str(value)


def parse_yaml(text: str, *, source: str) -> Mapping[str, Any]:
    """Read a YAML mapping whose scalars stay strings.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        tree = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 (a SafeLoader with fewer types)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError("config", source, f"is not valid YAML ({problem})", "correct the file") from None
    except RecursionError:
        raise ConfigError("config", source, "is nested too deeply", "correct the file") from None
    if tree is None or tree == "":
        return {}
    if not isinstance(tree, Mapping):
        raise ConfigError("config", source, "is not a YAML mapping", "write `field: value` lines")
    return tree


def add_flags(parser: argparse.ArgumentParser, config_type: type) -> None:
    """Add one flag per field of ``config_type``: dashes for underscores, dots for nesting."""
    for leaf in _leaves(config_type, with_docs=True):
        annotation, _ = _strip_optional(leaf.annotation)
        options: dict[str, Any] = {"dest": leaf.name, "default": None, "help": _help(leaf)}
        if annotation is bool:
            options.update(nargs="?", const="true", metavar="true|false")
        elif get_origin(annotation) is Literal:
            options["metavar"] = "|".join(map(str, get_args(annotation)))
        else:
            options["metavar"] = leaf.path[-1].rstrip("_").upper()
        if _is_list(leaf.annotation):
            options["action"] = "append"
        parser.add_argument(leaf.flag, **options)


def required_flags(config_type: type) -> list[str]:
    """Return the flags that have no default, each with the name of its value: ``--out OUT``."""
    leaves = [leaf for leaf in _leaves(config_type) if leaf.default is dataclasses.MISSING]
    return [f"{leaf.flag} {leaf.path[-1].rstrip('_').upper()}" for leaf in leaves]


def _help(leaf: _Leaf) -> str:
    text = leaf.help.replace("%", "%%")
    if leaf.default is dataclasses.MISSING:
        return f"{text} (required)"
    return text if leaf.default in (None, (), "") else f"{text} (default: {leaf.default})".replace("%%%%", "%%")


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return an argument parser that raises ConfigError and never abbreviates flags."""
    return _Parser(prog=prog, description=description, allow_abbrev=False)


def from_flags(
    config_type: type[ConfigT],
    flags: Mapping[str, Any],
    tree: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Build a config from a YAML mapping overridden by parsed flags; list flags append to the file's list.

    Args:
        config_type: the dataclass to build.
        flags: dotted field name -> string, list of strings, or None where the flag was not given.
        tree: as ``parse_yaml`` gives it.
        preset: values by field that stand in for the defaults.

    Raises:
        ConfigError: as in ``from_mapping``, or a value that carries a credential: configs are shown and stored.
    """
    merged = _read_tree(config_type, preset or {}) | _read_tree(config_type, tree)
    for leaf in _leaves(config_type):
        given = flags.get(leaf.name)
        if given is None:
            continue
        value = _convert(leaf, given)
        merged[leaf.path] = (*merged.get(leaf.path, ()), *value) if _is_list(leaf.annotation) and value else value
    config = _build(config_type, merged)
    for path, value in merged.items():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                check_no_credential(path[-1].rstrip("_"), item)
    return config


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config as plain nested dicts, lists and scalars, in field order."""
    tree: dict[str, Any] = {}
    for leaf in _leaves(type(config)):
        value = config
        for step in leaf.path:
            value = getattr(value, step)
        *groups, last = leaf.name.split(".")
        here = tree
        for group in groups:
            here = here.setdefault(group, {})
        here[last] = list(value) if isinstance(value, tuple) else value
    return tree


def to_yaml(config: Any) -> str:
    """Return a config as YAML that ``from_flags`` reads back to an equal config."""
    text = yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)
    if any(line_break in text for line_break in "\x85\u2028\u2029"):  # PyYAML would read them back as spaces
        text = yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=False)
    return text


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 (64 hex digits) of a mapping of JSON values, independent of key order."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_size(field: str, text: str) -> int:
    """Return a size such as ``5GiB``, ``512MB`` or ``1000`` in bytes.

    Raises:
        ConfigError: the text is no size.
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().rstrip("BKMGIbkmgi ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError):
        raise ConfigError(field, text, "is not a size", "write for example 5GiB or 512MB") from None
    if not 1 <= size < float("inf"):
        raise ConfigError(field, text, "is less than one byte, or endless", "write for example 5GiB or 512MB")
    return int(size)
