"""The file of a trained style: weights, architecture and history in one safetensors file, without pickle.

The safetensors header holds the format, the name and version of the style, the architecture and the metadata as JSON.
Reading it (``read_header``) needs neither torch nor the weights. Equal models give equal bytes, and the SHA-256 of the
bytes identifies a model in manifests and registries.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from stylemill.errors import ConfigError, ObjectNotFound, PathConflict
from stylemill.storage.uri import can_name_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from stylemill.nn.architecture import Architecture
    from stylemill.nn.transformer_net import TransformerNet

FORMAT = "stylemill/1"
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 8
_CURE = "give a style.safetensors that `stylemill train` wrote"
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


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleModel:
    """Trained weights of one style with architecture and history."""

    name: str
    """Name of the style."""
    version: str
    """Version of the style: each training of a style gives another version."""
    architecture: Architecture
    """Architecture of the network that the weights belong to."""
    state_dict: dict[str, Tensor]
    """Parameters and buffers of a ``TransformerNet``, on the CPU."""
    metadata: dict[str, Any]
    """JSON-able history and properties of the model; unknown keys survive a round trip."""
    sha256: str = ""
    """Hex digest of the file's bytes; empty until the model was saved or loaded."""

    def build_network(self) -> TransformerNet:
        """Return a network in eval mode with its own float32 copy of the weights."""
        import torch

        from stylemill.nn.transformer_net import TransformerNet

        with torch.device("meta"):  # draws no random weights and allocates no memory
            network = TransformerNet(self.architecture)
        weights = {key: tensor.detach().to(torch.float32, copy=True) for key, tensor in self.state_dict.items()}
        network.load_state_dict(weights, assign=True)
        return network.eval()


def to_bytes(model: StyleModel) -> bytes:
    """Serialise a model; equal models give equal bytes, whatever their ``sha256`` field holds."""
    import safetensors.torch

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict.items()}
    header, payload = _split(safetensors.torch.save(tensors))
    header["__metadata__"] = {
        "format": FORMAT,
        "name": model.name,
        "version": model.version,
        "architecture": json.dumps(model.architecture.to_mapping(), sort_keys=True),
        "metadata": json.dumps(model.metadata, sort_keys=True, ensure_ascii=False, allow_nan=False),
    }
    # safetensors itself writes metadata in the order of a randomly seeded hash map.
    text = json.dumps(header, sort_keys=True, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + payload


def read_header(data: bytes, *, source: str) -> StyleHeader:
    """Read the header of a style file without importing torch.

    Args:
        data: the whole file, which is also hashed.
        source: where the bytes came from, for messages.
    Raises:
        ConfigError: the bytes are not a style model, or its name or version cannot name a folder.
    """
    try:
        header, _ = _split(data)
        entries = header["__metadata__"]
        if entries["format"] != FORMAT:
            raise ConfigError("model", source, f"has the unknown format {entries['format']!r}", _CURE)
        for what in ("name", "version"):  # they name folders
            if not can_name_folder(entries[what]):
                problem = f"has the {what} {entries[what]!r}, which cannot name a folder"
                raise ConfigError("model", source, problem, "train or import it with another --name")
        return StyleHeader(
            name=entries["name"],
            version=entries["version"],
            architecture=_json_object(entries["architecture"]),
            metadata=_json_object(entries["metadata"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cure = _CURE
        if source.lower().endswith(_FOREIGN):
            cure = f"import it first: stylemill models import --from {source} --out FOLDER --name NAME"
        raise ConfigError("model", source, "is not a style model", cure) from error


def from_bytes(data: bytes, *, source: str) -> StyleModel:
    """Read a style model.

    Args:
        data: the whole file.
        source: where the bytes came from, for messages.
    Raises:
        ConfigError: the bytes are not a style model, or the weights do not fit the architecture or are not finite.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    from stylemill.nn.architecture import Architecture

    header = read_header(data, source=source)
    try:
        architecture = Architecture.from_mapping(header.architecture)
        state_dict = safetensors.torch.load(data)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ConfigError("model", source, f"is a damaged style model ({error})", _CURE) from error
    problem = _weights_problem(architecture, state_dict)
    if problem:
        raise ConfigError("model", source, f"is a damaged style model ({problem})", _CURE)
    return StyleModel(
        name=header.name,
        version=header.version,
        architecture=architecture,
        state_dict=state_dict,
        metadata=header.metadata,
        sha256=header.sha256,
    )


def save_style_model(storage: ByteStore, uri: str, model: StyleModel) -> StyleModel:
    """Write a model atomically and return it with the digest of the written bytes."""
    data = to_bytes(model)
    storage.write_bytes(uri, data)
    return replace(model, sha256=hashlib.sha256(data).hexdigest())


def load_style_model(storage: ByteStore, uri: str) -> StyleModel:
    """Read a model from any location.

    Raises:
        ConfigError: there is no object at the location, or it is not a style model.
        StorageError: the storage failed beyond its retries.
    """
    return from_bytes(_read(storage, uri), source=uri)


def load_style_header(storage: ByteStore, uri: str) -> StyleHeader:
    """Read a model's header and digest from any location without importing torch; raises as ``load_style_model``."""
    return read_header(_read(storage, uri), source=uri)


def _read(storage: ByteStore, uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except ObjectNotFound as error:
        raise ConfigError("model", uri, "does not exist", _CURE) from error
    except PathConflict as error:
        raise ConfigError("model", uri, f"is not a file ({error})", _CURE) from error


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON header and the payload of safetensors bytes; raise ValueError if there is no header."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    if len(data) < end:
        raise ValueError("shorter than its header")
    return _json_object(data[_LENGTH_BYTES:end]), data[end:]


def _json_object(text: str | bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _weights_problem(architecture: Architecture, state_dict: Mapping[str, Tensor]) -> str | None:
    """Return why the weights do not fit the architecture or are not finite, or None."""
    import torch

    from stylemill.nn.transformer_net import TransformerNet

    with torch.device("meta"):
        expected = TransformerNet(architecture).state_dict()
    if expected.keys() != state_dict.keys():
        names = sorted(expected.keys() ^ state_dict.keys())
        return f"{len(names)} parameters are missing or unexpected, such as {names[0]}"
    for key, tensor in state_dict.items():
        if tensor.shape != expected[key].shape:
            return f"{key} has shape {tuple(tensor.shape)} instead of {tuple(expected[key].shape)}"
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            return f"{key} holds values that are not finite floats"
    return None
