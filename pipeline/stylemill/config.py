"""Frozen dataclasses <-> YAML files and the values of command-line flags, and checks of fields.

A config is a frozen keyword-only dataclass beside its owner, each field followed by a docstring that becomes the
flag's help. YAML scalars are read as plain strings and typed by the field, exactly as flags are: so ``1:4`` stays
text, ``1e-3`` is a number, and a mistake in a file reads like a mistake in a flag. ``cli/arguments.py`` builds an
argparse parser from the same fields. The mapping is written here because the ready-made ones miss dashes, repeated
list flags and one-line errors.
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


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One settable value: where it sits in the config, what users call it, its type, default and help."""

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


def leaves(config_type: type, path: tuple[str, ...] = (), prefix: str = "", with_docs: bool = False) -> Iterator[Leaf]:
    """Yield the settable values of a config, nested ones with dotted names; ``with_docs`` reads their help too."""
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
        # A trailing underscore keeps a field apart from a word of Python (from_) and is nothing to users.
        name = prefix + field.name.rstrip("_")
        yield Leaf(here, name, annotation, default, docs.get(field.name, ""))


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def strip_optional(annotation: Any) -> tuple[Any, bool]:
    """Return a field's type without ``| None``, and whether None was allowed."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members[0], len(members) < len(get_args(annotation))
    return annotation, False


def is_list(annotation: Any) -> bool:
    """Return whether a field takes several values (a tuple)."""
    return get_origin(strip_optional(annotation)[0]) is tuple


def _convert(leaf: Leaf, value: Any) -> Any:
    """Return ``value`` (a string, or a list of strings) as the leaf's type; raise ConfigError otherwise."""
    annotation, optional = strip_optional(leaf.annotation)
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
    known = {leaf.name: leaf for leaf in leaves(config_type)}
    values = _flatten(tree)
    for name, value in list(values.items()):
        if name not in known:
            inside = [leaf[len(name) + 1 :] for leaf in known if leaf.startswith(f"{name}.")]
            if inside and value in (None, ""):  # a group whose fields are all commented out
                del values[name]
                continue
            if inside:
                raise ConfigError(name, value, "is a group of fields", f"write below it, indented: {', '.join(inside)}")
            close = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {close[0]}?" if close else "use one of " + ", ".join(known)
            raise ConfigError(name, value, "is no field here", cure)
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


_LOGIN = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<login>[^/@\s]*)@")
_SIGNED = re.compile(
    r"https?://[^?\s]*\?([^\s]*&)?[^=&]*(sig|signature|token|secret|credential|password)[^=&]*=", re.IGNORECASE
)


def check_at_least(field: str, value: int, low: int) -> None:
    """Raise ConfigError if a whole number is below ``low``."""
    if value < low:
        raise ConfigError(field, value, f"is below {low}", f"write a whole number from {low}")


def check_within(field: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError if a number is not between ``low`` and ``high``, both included."""
    if not low <= value <= high:
        raise ConfigError(field, value, "is out of range", f"write a number from {low:g} to {high:g}")


def check_one_of(field: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError if a word is none of the choices."""
    if value not in choices:
        raise ConfigError(field, value, "is not a choice", "use one of " + ", ".join(choices))


def check_no_credential(field: str, value: str) -> None:
    """Raise ConfigError if a location carries a credential (a login, or a signed URL's query), without showing it."""
    login = _LOGIN.match(value)
    # abfs://container@account names no login.
    has_login = login is not None and (login["scheme"].lower() not in ("abfs", "abfss") or ":" in login["login"])
    if has_login or _SIGNED.match(value):
        shown = without_credentials(value.partition("?")[0])
        cure = "leave it out and set the credentials in the environment, or give the machine a role"
        raise ConfigError(field, shown, "carries a credential", cure)
