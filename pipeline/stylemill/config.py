"""Configs: frozen dataclasses that are read from YAML files and command-line flags.

A config is a frozen keyword-only dataclass, defined next to the code that uses it. Each field is followed by a
docstring, which becomes the help of its flag. The scalars of a YAML file are read as strings and converted by the type
of the field, exactly as flags are: ``1:4`` stays text, ``1e-3`` is a number, and a mistake in a file gives the same
message as a mistake in a flag. ``cli/arguments.py`` builds an argparse parser from the same fields. Existing libraries
for this lack dashes in flags, repeated list flags or one-line errors.

In this order: the fields of a config, conversion of values, reading YAML, building a config, writing one, and checks
of values that several configs share.
"""

from __future__ import annotations

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
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml

from stylemill.errors import ConfigError, without_credentials

ConfigT = TypeVar("ConfigT")

GIVE_IT = "give it on the command line or in the --config file"
"""Cure for a field that is missing."""
TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}
_NONE = {"", "null", "none", "~"}
_LOGIN = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<login>[^/@\s]*)@")
_SIGNED = re.compile(
    r"https?://[^?\s]*\?([^\s]*&)?[^=&]*(sig|signature|token|secret|credential|password)[^=&]*=", re.IGNORECASE
)


class _PlainLoader(yaml.SafeLoader):
    """A YAML loader that keeps all scalars as strings and refuses aliases and repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (replaces the parent's table)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few lines of them can expand to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not supported; write the value itself", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key; PyYAML silently keeps the last one."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One value of a config that a user can set: its path in the config, name, type, default and help."""

    path: tuple[str, ...]
    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """The command-line flag: ``--style-image``."""
        return "--" + self.name.replace("_", "-")


def inline(group_type: type[ConfigT]) -> ConfigT:
    """Return a field for a nested config whose names get no prefix in flags and files: no ``encode.``."""
    return dataclasses.field(default_factory=group_type, metadata={"inline": True})


def field_docs(config_type: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, including inherited fields."""
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


def leaves(config_type: type, path: tuple[str, ...] = (), prefix: str = "", with_docs: bool = False) -> Iterator[Leaf]:
    """Yield the values of a config that users can set, nested ones with dotted names; ``with_docs`` adds their help."""
    hints = typing.get_type_hints(config_type)
    docs = field_docs(config_type) if with_docs else {}
    for field in dataclasses.fields(config_type):
        annotation = hints[field.name]
        here = (*path, field.name)
        if _is_group(annotation):
            inner = prefix if field.metadata.get("inline") else f"{prefix}{field.name}."
            yield from leaves(annotation, here, inner, with_docs)
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        # A trailing underscore avoids a Python keyword (from_) and is not part of the name for users.
        name = prefix + field.name.rstrip("_")
        yield Leaf(here, name, annotation, default, docs.get(field.name, ""))


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def strip_optional(annotation: Any) -> tuple[Any, bool]:
    """Return a field's type without ``| None``, and whether None is allowed."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members[0], len(members) < len(get_args(annotation))
    return annotation, False


def is_list(annotation: Any) -> bool:
    """Return whether a field takes several values (is a tuple)."""
    return get_origin(strip_optional(annotation)[0]) is tuple


def _convert(leaf: Leaf, value: Any) -> Any:
    """Convert a string or a list of strings to the type of a field; raise ConfigError if that is impossible."""
    annotation, optional = strip_optional(leaf.annotation)
    if value is None or (optional and isinstance(value, str) and value.strip().lower() in _NONE):
        if optional:
            return None
        raise ConfigError(leaf.name, value, "needs a value", f"give one with {leaf.flag}")
    if get_origin(annotation) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise ConfigError(leaf.name, value, "is not a list of strings", "write one value or a YAML list")
        return tuple(items)
    if not isinstance(value, str):
        raise ConfigError(leaf.name, value, "is not a single value", f"write one value, as for {leaf.flag}")
    return _convert_scalar(leaf.name, annotation, value)


def _convert_scalar(name: str, annotation: Any, text: str) -> Any:
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if text not in choices:
            raise ConfigError(name, text, "is not one of the choices", "use one of " + ", ".join(map(str, choices)))
        return text
    if annotation is bool:
        if text.lower() not in TRUE | FALSE:
            raise ConfigError(name, text, "is neither true nor false", "write true or false")
        return text.lower() in TRUE
    if annotation in (int, float):
        # YAML spells infinity and not-a-number with a dot: .inf, .nan.
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
    """Return the values of a YAML mapping by dotted name, all scalars as strings."""
    values: dict[str, Any] = {}
    for raw_name, value in tree.items():
        name = prefix + str(raw_name).replace("-", "_")
        found = _flatten(value, name + ".") if isinstance(value, Mapping) else {name: _stringify(value)}
        for twice in found.keys() & values.keys():
            raise ConfigError(twice, found[twice], "is given twice in the file", "keep one of them")
        values.update(found)
    return values


def _read_tree(config_type: type, tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the converted values of a YAML mapping by path; raise ConfigError at the first unknown field."""
    known = {leaf.name: leaf for leaf in leaves(config_type)}
    values = _flatten(tree)
    for name, value in list(values.items()):
        if name not in known:
            inside = [leaf[len(name) + 1 :] for leaf in known if leaf.startswith(f"{name}.")]
            if inside and value in (None, ""):  # a group whose fields are all commented out
                del values[name]
                continue
            if inside:
                raise ConfigError(
                    name, value, "is a group of fields", f"write its fields below it, indented: {', '.join(inside)}"
                )
            close = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {close[0]}?" if close else "use one of " + ", ".join(known)
            raise ConfigError(name, "" if value is None else value, "is not a field of this config", cure)
    return {known[name].path: _convert(known[name], value) for name, value in values.items()}


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
            raise ConfigError(field.name, None, "is required", GIVE_IT)
    return config_type(**arguments)


def from_mapping(config_type: type[ConfigT], tree: Mapping[str, Any]) -> ConfigT:
    """Build a config from a mapping whose scalars are strings or plain values.

    Raises:
        ConfigError: a field is unknown, a value has the wrong type, or a required field is missing.
    """
    return from_flags(config_type, {}, tree)


def _stringify(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_stringify(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    # No field takes a mapping inside a list: it stays as it is, so that it is refused with the name of the field.
    return value if value is None or isinstance(value, str | Mapping) else str(value)


def parse_yaml(text: str, *, source: str) -> Mapping[str, Any]:
    """Read a YAML mapping whose scalars stay strings.

    Raises:
        ConfigError: the text is not YAML, or not a mapping.
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


def from_flags(
    config_type: type[ConfigT],
    flags: Mapping[str, Any],
    tree: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Build a config from a YAML mapping and flags, which override it; list flags append to the file's list.

    Args:
        config_type: the dataclass to build.
        flags: dotted field name -> string, list of strings, or None if the flag was not given.
        tree: what ``parse_yaml`` returned.
        preset: values by field that replace the defaults.

    Raises:
        ConfigError: as in ``from_mapping``, or a value carries a credential: configs are printed and stored.
    """
    merged = _read_tree(config_type, preset or {}) | _read_tree(config_type, tree)
    for leaf in leaves(config_type):
        given = flags.get(leaf.name)
        if given is None:
            continue
        value = _convert(leaf, given)
        merged[leaf.path] = (*merged.get(leaf.path, ()), *value) if is_list(leaf.annotation) and value else value
    config = _build(config_type, merged)
    for path, value in merged.items():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                check_no_credential(path[-1].rstrip("_"), item)
    return config


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config as plain nested dicts, lists and scalars, in field order."""
    tree: dict[str, Any] = {}
    for leaf in leaves(type(config)):
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
    """Return a config as YAML from which ``from_flags`` builds an equal config."""
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
        ConfigError: the text is not a size of at least one byte.
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().rstrip("BKMGIbkmgi ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError):
        raise ConfigError(field, text, "is not a size", "write for example 5GiB or 512MB") from None
    if not 1 <= size < float("inf"):
        raise ConfigError(field, text, "is less than one byte, or infinite", "write for example 5GiB or 512MB")
    return int(size)


def check_at_least(field: str, value: int, low: int) -> None:
    """Raise ConfigError if a whole number is below ``low``."""
    if value < low:
        raise ConfigError(field, value, f"is below {low}", f"write a whole number from {low}")


def check_within(field: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError if a number is not between ``low`` and ``high``, inclusive."""
    if not low <= value <= high:
        raise ConfigError(field, value, "is out of range", f"write a number from {low:g} to {high:g}")


def check_one_of(field: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError if a word is not one of the choices."""
    if value not in choices:
        raise ConfigError(field, value, "is not one of the choices", "use one of " + ", ".join(choices))


def check_no_credential(field: str, value: str) -> None:
    """Raise ConfigError if a location carries a credential, a login or a signed URL's query; never show it."""
    login = _LOGIN.match(value)
    # abfs://container@account is not a login.
    has_login = login is not None and (login["scheme"].lower() not in ("abfs", "abfss") or ":" in login["login"])
    if has_login or _SIGNED.match(value):
        shown = without_credentials(value.partition("?")[0])
        cure = "leave it out and set the credentials in the environment, or give the machine a role"
        raise ConfigError(field, shown, "carries a credential", cure)
