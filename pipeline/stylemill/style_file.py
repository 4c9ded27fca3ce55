"""The file of trained styles: weights, architecture and history in one safetensors file, without pickle.

The safetensors header holds the format, the architecture, and name, version and metadata of each style as JSON. Nothing
here needs torch. Equal models give equal bytes, and the SHA-256 of the bytes identifies a model in manifests and
registries.

A file may hold several styles of one network (``merge_styles``): the convolutions are stored once, and each norm's
tensors have the styles as their first dimension. ``split_styles`` gives back the file of each style, byte for byte, so
a style has the same digest whether it travels alone or with others. ``FILE#STYLE`` names one style of such a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stylemill.errors import ConfigError, ObjectNotFound, PathConflict
from stylemill.storage.uri import can_name_folder
from stylemill.tensor_file import StoredTensor, header_of, json_object, pack, unpack

FORMAT = "stylemill/1"
FORMAT_OF_SEVERAL = "stylemill/2"
CURE = "give a style.safetensors that `stylemill train` wrote"
SUFFIX = ".safetensors"
OWN_PARTS = ".norm."
"""Part of the names of the tensors that each style of a network has of its own."""
PHOTO = "photo"
"""Name of the style that paints photographs as they are (``train --with-photo``)."""
PAINTS_PHOTOGRAPHS = "paints_photographs"
"""Key of its metadata, with the value true."""
PICTURE = "picture"
"""Key of a style's metadata: its style image, scaled down, as the base64 of a file that Pillow reads."""
FORBIDDEN_IN_NAMES = "#:,"
"""Characters that have a meaning in ``FILE#STYLE`` and in mixtures, so no style of several may have them."""
_FOREIGN = (".pth", ".pt", ".ckpt", ".bin", ".model", ".t7", ".onnx")
"""Suffixes of checkpoints of other implementations."""


class ByteStore(Protocol):
    """The two operations of ``stylemill.storage.Storage`` that a style model needs."""

    def read_bytes(self, uri: str) -> bytes:
        """Return the whole object; raise ObjectNotFound where there is none."""

    def write_bytes(self, uri: str, data: bytes) -> object:
        """Write the whole object atomically."""


@dataclass(frozen=True, kw_only=True)
class StyleHeader:
    """Header of a style file; read without importing torch."""

    name: str
    """Name of the style."""
    version: str
    """Version of the style: each training of a style gives another version."""
    architecture: dict[str, Any]
    """Fields of ``stylemill.nn.architecture.Architecture``."""
    metadata: dict[str, Any]
    """JSON-able history and properties of the model; unknown keys survive a round trip."""
    sha256: str
    """Hex digest of the file's bytes."""

    @property
    def picture(self) -> bytes | None:
        """The style image, scaled down, as the bytes of a file; None if the model has none."""
        text = self.metadata.get(PICTURE)
        try:
            return base64.b64decode(text, validate=True) if isinstance(text, str) else None
        except ValueError:
            return None


def encode(
    tensors: bytes, *, name: str, version: str, architecture: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bytes:
    """Return the file of one style.

    Args:
        tensors: a safetensors file; its own metadata is dropped.
        name: of the style.
        version: of the style.
        architecture: fields of ``Architecture``.
        metadata: JSON-able.
    """
    entries = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "architecture": _to_json(architecture),
        "metadata": _to_json(metadata),
    }
    return pack(unpack(tensors)[1], entries)


def read_header(data: bytes, *, source: str) -> StyleHeader:
    """Read the header of the file of one style.

    Args:
        data: the whole file, which is also hashed.
        source: where the bytes came from, for messages.
    Raises:
        ConfigError: the bytes are not a style model, or hold several styles, or the name or version cannot name a
            folder.
    """
    entries, names = _entries(data, source)
    if names is not None:
        raise _is_ambiguous(source, names)
    try:
        header = StyleHeader(
            name=entries["name"],
            version=entries["version"],
            architecture=json_object(entries["architecture"]),
            metadata=json_object(entries["metadata"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _is_no_model(source) from error
    _check_names(header.name, header.version, source)
    return header


def style_names(data: bytes, *, source: str) -> list[str]:
    """Return the names of the styles in a file, in its order.

    Raises:
        ConfigError: the bytes are not a style model.
    """
    _, names = _entries(data, source)
    return [read_header(data, source=source).name] if names is None else names


def split_styles(data: bytes, *, source: str) -> list[bytes]:
    """Return the file of each style in a file of one or several.

    Raises:
        ConfigError: the bytes are not a style model, or are damaged.
    """
    entries, names = _entries(data, source)
    tensors = _tensors_of(data, source)
    if names is None:
        return [data]
    try:
        return [_file_of(index, tensors, entries) for index in range(len(names))]
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise ConfigError("model", source, f"is a damaged style model ({error})", CURE) from error


def one_style(data: bytes, style: str | None, *, source: str) -> bytes:
    """Return the file of one style of a file.

    Args:
        data: the whole file.
        style: its name; None takes the only one.
        source: where the bytes came from, for messages.
    Raises:
        ConfigError: the bytes are not a style model, it has no such style, or several and none is chosen.
    """
    names = style_names(data, source=source)
    if style is None and len(names) > 1:
        raise _is_ambiguous(source, names)
    if style is not None and style not in names:
        raise ConfigError("style", style, f"is not in {source}, which has {', '.join(names)}", "choose one of them")
    return split_styles(data, source=source)[0 if style is None else names.index(style)]


def merge_styles(files: Mapping[str, bytes]) -> bytes:
    """Return one file with the styles of several, in their order; one style alone stays what it is.

    Args:
        files: by source: the file of one style, or of several.
    Raises:
        ConfigError: two styles have the same name or different convolutions, a name has one of FORBIDDEN_IN_NAMES, or
            one of the files is not a style model.
    """
    singles = [(source, single) for source, data in files.items() for single in split_styles(data, source=source)]
    if len(singles) == 1:
        return singles[0][1]
    styles: list[dict[str, Any]] = []
    stacked: dict[str, list[StoredTensor]] = {}
    first_source, architecture, shared = "", "", {}
    for source, single in singles:
        header, tensors = read_header(single, source=source), _tensors_of(single, source)
        _check_joins(header.name, [style["name"] for style in styles], source)
        convolutions = {key: tensor for key, tensor in tensors.items() if OWN_PARTS not in key}
        if not styles:
            first_source, architecture, shared = source, _to_json(header.architecture), convolutions
        elif _to_json(header.architecture) != architecture or convolutions != shared:
            problem = f"has other convolutions than {first_source}, so they cannot share a network"
            raise ConfigError("model", source, problem, "train its style with --add-to, or keep the files apart")
        styles.append({"name": header.name, "version": header.version, "metadata": header.metadata})
        own = {key: tensor for key, tensor in tensors.items() if OWN_PARTS in key}
        for key, tensor in own.items():
            first = stacked.setdefault(key, [tensor])[0]
            if len(styles) == 1:
                continue
            if (tensor.dtype, tensor.shape) != (first.dtype, first.shape) or len(own) != len(stacked):
                problem = f"stores its norms in another way than {first_source} ({key}: {tensor.dtype}, {first.dtype})"
                raise ConfigError("model", source, problem, "keep the files apart")
            stacked[key].append(tensor)
    together = {key: _stack(parts) for key, parts in stacked.items()}
    entries = {"format": FORMAT_OF_SEVERAL, "architecture": architecture, "styles": _to_json(styles)}
    return pack({**shared, **together}, entries)


def renamed(single: bytes, name: str, *, source: str) -> bytes:
    """Return the file of one style under another name.

    Raises:
        ConfigError: the name cannot name a folder, or the bytes are not the file of one style.
    """
    header = read_header(single, source=source)
    _check_names(name, header.version, source)
    return encode(single, name=name, version=header.version, architecture=header.architecture, metadata=header.metadata)


def have_one_network(first: bytes, second: bytes) -> bool:
    """Return whether the files of two styles have the same architecture and convolutions, to the last bit.

    Raises:
        ConfigError: one is damaged.
    """
    networks = []
    for single in (first, second):
        tensors = _tensors_of(single, "the file of a style")
        architecture = _entries(single, "the file of a style")[0]["architecture"]
        networks.append((architecture, {key: tensor for key, tensor in tensors.items() if OWN_PARTS not in key}))
    return networks[0] == networks[1]


def split_location(uri: str) -> tuple[str, str | None]:
    """Return the location of a file and the style that ``FILE.safetensors#STYLE`` chooses, None without one."""
    location, mark, style = uri.rpartition("#")
    if mark and style and "/" not in style and location.partition("?")[0].lower().endswith(SUFFIX):
        return location, style
    return uri, None


def read_file(storage: ByteStore, uri: str) -> bytes:
    """Return a whole file of styles.

    Raises:
        ConfigError: there is none at the location.
        StorageError: the storage failed beyond its retries.
    """
    try:
        return storage.read_bytes(uri)
    except ObjectNotFound as error:
        raise ConfigError("model", uri, "does not exist", CURE) from error
    except PathConflict as error:
        raise ConfigError("model", uri, f"is not a file ({error})", CURE) from error


def read_style(storage: ByteStore, uri: str) -> bytes:
    """Return the file of one style at a location, or of the one that ``FILE#STYLE`` chooses.

    Raises:
        ConfigError: there is none, it is not a style model, or it holds several and none is chosen.
        StorageError: the storage failed beyond its retries.
    """
    location, style = split_location(uri)
    data = read_file(storage, location)
    return one_style(data, style, source=location)


def load_style_header(storage: ByteStore, uri: str) -> StyleHeader:
    """Read the header and digest of the style at a location without importing torch; raises as ``read_style``."""
    return read_header(read_style(storage, uri), source=uri)


def load_style_headers(storage: ByteStore, uri: str) -> list[StyleHeader]:
    """Read the header and digest of every style in the file at a location.

    Raises:
        ConfigError: there is none, or it is not a style model.
        StorageError: the storage failed beyond its retries.
    """
    return [read_header(single, source=uri) for single in split_styles(read_file(storage, uri), source=uri)]


def of_another_version(source: str, what: str) -> ConfigError:
    """Return the error for a file that this version of stylemill cannot read."""
    cure = "upgrade stylemill, or train the style again"
    return ConfigError("model", source, f"was written by another version of stylemill ({what})", cure)


def _entries(data: bytes, source: str) -> tuple[dict[str, Any], list[str] | None]:
    """Return the metadata of a file, and the names of its styles if it holds several.

    Raises:
        ConfigError: the bytes are not a style model.
    """
    try:
        entries = header_of(data)[0]["__metadata__"]
        if entries["format"] == FORMAT:
            return entries, None
        if entries["format"] != FORMAT_OF_SEVERAL:
            what = f"format {entries['format']!r}, this one reads {FORMAT!r} and {FORMAT_OF_SEVERAL!r}"
            raise of_another_version(source, what)
        styles = [(style["name"], style["version"]) for style in json.loads(entries["styles"])]
        if not styles:
            raise ValueError("it holds no style")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _is_no_model(source) from error
    for name, version in styles:
        _check_names(name, version, source)
    return entries, [name for name, _ in styles]


def _check_names(name: Any, version: Any, source: str) -> None:
    for what, value in (("name", name), ("version", version)):  # they name folders
        if not isinstance(value, str) or not can_name_folder(value):
            problem = f"has the {what} {value!r}, which cannot name a folder"
            raise ConfigError("model", source, problem, "train or import it with another --name")


def can_be_one_of_several(name: str) -> bool:
    """Return whether a style of this name can be chosen and mixed among several."""
    return not any(character in name for character in FORBIDDEN_IN_NAMES)


def _check_joins(name: str, others: Sequence[str], source: str) -> None:
    if name in others:
        raise ConfigError("model", source, f"has a style {name!r} too", "rename one: stylemill models rename")
    if not can_be_one_of_several(name):
        problem = f"has the style {name!r}; among several, names have no {' '.join(FORBIDDEN_IN_NAMES)}"
        raise ConfigError("model", source, problem, "rename it: stylemill models rename")


def _is_ambiguous(source: str, names: Sequence[str]) -> ConfigError:
    problem = f"holds {len(names)} styles: {', '.join(names)}"
    return ConfigError("model", source, problem, f"choose one, as {source}#{names[0]}")


def _is_no_model(source: str) -> ConfigError:
    cure = CURE
    if source.lower().endswith(_FOREIGN):
        cure = f"import it first: stylemill models import --from {source} --out FOLDER --name NAME"
    return ConfigError("model", source, "is not a style model", cure)


def _tensors_of(data: bytes, source: str) -> dict[str, StoredTensor]:
    """Return the tensors of a file; raise ConfigError if they are damaged."""
    try:
        return unpack(data)[1]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("model", source, f"is a damaged style model ({error})", CURE) from error


def _file_of(index: int, tensors: Mapping[str, StoredTensor], entries: Mapping[str, Any]) -> bytes:
    style = json.loads(entries["styles"])[index]
    own = {key: _part(tensor, index) if OWN_PARTS in key else tensor for key, tensor in tensors.items()}
    single = {
        "format": FORMAT,
        "name": style["name"],
        "version": style["version"],
        "architecture": entries["architecture"],
        "metadata": _to_json(style["metadata"]),
    }
    return pack(own, single)


def _stack(parts: Sequence[StoredTensor]) -> StoredTensor:
    first = parts[0]
    return StoredTensor(first.dtype, (len(parts), *first.shape), b"".join(part.data for part in parts))


def _part(stacked: StoredTensor, index: int) -> StoredTensor:
    num_bytes = len(stacked.data) // stacked.shape[0]
    return StoredTensor(stacked.dtype, stacked.shape[1:], stacked.data[index * num_bytes : (index + 1) * num_bytes])


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
