"""``stylemill models merge|split|rename|drop|look``: styles of one network in one file or in their own; looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stylemill.builtin import is_builtin, model_location
from stylemill.cli.arguments import Subcommand
from stylemill.errors import ConfigError, config_errors_for
from stylemill.painting.options import PaintOptions
from stylemill.registry import is_reference, locate_model
from stylemill.storage import Storage, StorageOptions, join, resolve
from stylemill.storage.uri import can_name_folder
from stylemill.storage.user_errors import reading_input, writing_output
from stylemill.style_file import (
    SUFFIX,
    merge_styles,
    one_style,
    read_file,
    read_header,
    renamed,
    split_location,
    split_styles,
)

DIGITS = 12
"""Digits of a SHA-256 that are printed."""


def _required(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name):
            raise ConfigError(name.rstrip("_"), None, "is required", "see --help")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Settings of ``models merge``."""

    from_: tuple[str, ...] = ()
    """Style models of one network: locations, FILE#STYLE, or registry:STYLE[@VERSION]."""

    out: str = ""
    """Location of the file to write, ending in .safetensors."""

    registry: str | None = None
    """Registry that registry:STYLE refers to; by default STYLEMILL_REGISTRY of the environment."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        _required(self, "from_", "out")
        _check_file("out", self.out)


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Settings of ``models split``."""

    from_: str = ""
    """Location of a file of several styles."""

    out: str = ""
    """Folder for a file NAME.safetensors of each style."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        _required(self, "from_", "out")


@dataclass(frozen=True, kw_only=True)
class RenameConfig:
    """Settings of ``models rename``."""

    from_: str = ""
    """Location of a style model."""

    style: str | None = None
    """Style to rename; may be left out if the file has only one."""

    to: str = ""
    """New name."""

    out: str | None = None
    """Location of the file to write; by default the file itself is replaced."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        _required(self, "from_", "to")
        _check_file("out", self.out)
        if not can_name_folder(self.to):
            raise ConfigError("to", self.to, "cannot name a folder", "give another name")


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """Settings of ``models drop``."""

    from_: str = ""
    """Location of a file of several styles."""

    style: tuple[str, ...] = ()
    """Style to leave out; may be repeated."""

    out: str | None = None
    """Location of the file to write; by default the file itself is replaced."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        _required(self, "from_", "style")
        _check_file("out", self.out)


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Settings of ``models look``."""

    from_: str = ""
    """Style model: a location, FILE#STYLE, or registry:STYLE[@VERSION]."""

    content: str = ""
    """The library: a prefix or directory, a glob, one file, or a list of locations (see stylize --input)."""

    out: str = ""
    """Location of the file to write, ending in .safetensors."""

    max_size_px: int | None = None
    """Longest side of the results, as stylize will have it."""

    texture_scale: float = 1.0
    """Size of the strokes, as stylize will have it."""

    registry: str | None = None
    """Registry that registry:STYLE refers to; by default STYLEMILL_REGISTRY of the environment."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        _required(self, "from_", "content", "out")
        _check_file("out", self.out)
        _ = self.paint_options  # its constructor checks the fields

    @property
    def paint_options(self) -> PaintOptions:
        """Size and texture scale of the results."""
        return PaintOptions(max_size_px=self.max_size_px, texture_scale=self.texture_scale)


def _check_file(field_name: str, uri: str | None) -> None:
    if uri is not None and not uri.endswith(SUFFIX):
        raise ConfigError(field_name, uri, f"does not end in {SUFFIX}", f"write for example styles{SUFFIX}")


def merge(config: MergeConfig) -> int:
    """Write one file with the styles of several."""
    storage, files = Storage(config.storage), {}
    for uri in config.from_:
        if uri in files:
            raise ConfigError("from", uri, "is given twice", "name each file once")
        with reading_input("from", uri, expected="a style model"):
            location, style = split_location(locate_model(storage, uri, config.registry))
            data = read_file(storage, location)
        files[uri] = data if style is None else one_style(data, style, source=location)
    _write(storage, resolve(config.out), merge_styles(files))
    return 0


def split(config: SplitConfig) -> int:
    """Write a file for each style."""
    storage, out = Storage(config.storage), resolve(config.out)
    for name, single in _styles(storage, config.from_).items():
        _write(storage, join(out, f"{name}{SUFFIX}"), single)
    return 0


def rename(config: RenameConfig) -> int:
    """Write the file with another name for one style."""
    storage = Storage(config.storage)
    styles = _styles(storage, config.from_)
    old = config.style or next(iter(styles))
    if config.style is None and len(styles) > 1:
        raise ConfigError("style", None, f"is required: {config.from_} holds {', '.join(styles)}", "choose one")
    _check_names(styles, (old,), config.from_)
    if config.to in styles and config.to != old:
        raise ConfigError("to", config.to, f"is another style of {config.from_}", "choose another name")
    files = {
        name: renamed(single, config.to, source=config.from_) if name == old else single
        for name, single in styles.items()
    }
    _write(storage, _destination(config), merge_styles(files))
    return 0


def drop(config: DropConfig) -> int:
    """Write the file without some styles."""
    storage = Storage(config.storage)
    styles = _styles(storage, config.from_)
    _check_names(styles, config.style, config.from_)
    kept = {name: single for name, single in styles.items() if name not in config.style}
    if not kept:
        raise ConfigError("style", list(config.style), f"are all that {config.from_} holds", "delete the file instead")
    _write(storage, _destination(config), merge_styles(kept))
    return 0


def look(config: LookConfig) -> int:
    """Write the styles of a model with one look for a library."""
    from stylemill.images.options import DecodeOptions
    from stylemill.library_look import draw_photos, with_look
    from stylemill.storage.user_errors import listing_input
    from stylemill.style_choice import load_styles
    from stylemill.style_model import to_bytes

    storage = Storage(config.storage)
    models = load_styles(storage, [config.from_], config.registry, with_photo=True)
    with listing_input("content", config.content), config_errors_for("content", keep=("look",)):
        photos = draw_photos(storage, resolve(config.content), config.paint_options, DecodeOptions())
    print(f"the look of {len(photos)} photographs of {config.content}")
    looks = {model.name: to_bytes(with_look(model, photos)) for model in models}
    _write(storage, resolve(config.out), merge_styles(looks))
    return 0


def _styles(storage: Storage, uri: str) -> dict[str, bytes]:
    """Return the file of each style in a file, by name."""
    if is_reference(uri):
        raise ConfigError("from", uri, "is a version in a registry, which never changes", "give the location of a file")
    if split_location(uri)[1] is not None:
        raise ConfigError("from", uri, "names one style of a file", "give the location of the file")
    with reading_input("from", uri, expected="a style model"):
        data = read_file(storage, model_location(uri))
    return {read_header(single, source=uri).name: single for single in split_styles(data, source=uri)}


def _check_names(styles: Mapping[str, bytes], asked: tuple[str, ...], uri: str) -> None:
    for name in asked:
        if name not in styles:
            raise ConfigError("style", name, f"is not in {uri}, which has {', '.join(styles)}", "choose one of them")


def _destination(config: RenameConfig | DropConfig) -> str:
    if config.out is None and is_builtin(config.from_):
        raise ConfigError("out", None, "is required: what comes with stylemill is not replaced", "name a file")
    return resolve(config.out or config.from_)


def _write(storage: Storage, uri: str, data: bytes) -> None:
    with writing_output(uri):
        storage.write_bytes(uri, data)
    print(f"{uri}: {len(data):,} bytes")
    print_styles(split_styles(data, source=uri), uri)


def print_styles(files: Sequence[bytes], source: str) -> None:
    """Print name, version and digest of each style, given its file."""
    for file in files:
        header = read_header(file, source=source)
        print(f"  {header.name}@{header.version}, sha256 {header.sha256[:DIGITS]}")


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "merge": Subcommand(
        does="write several styles of one network into one file", config=MergeConfig, run=merge, positional="from"
    ),
    "split": Subcommand(does="write a file for each style of a file", config=SplitConfig, run=split, positional="from"),
    "rename": Subcommand(does="give a style another name", config=RenameConfig, run=rename, positional="from"),
    "look": Subcommand(
        does="write a style model that paints all pictures of a library alike",
        config=LookConfig,
        run=look,
        positional="from",
    ),
    "drop": Subcommand(does="leave styles of a file out", config=DropConfig, run=drop, positional="from"),
}
