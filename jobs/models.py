"""``stylemill models import|export|show``: from and to other implementations, and what one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jobs.arguments import Subcommand, run_subcommand
from pipeline.checks import check_within
from pipeline.errors import ConfigError
from pipeline.storage import Storage, StorageOptions, join, resolve
from pipeline.storage.uri import can_name_folder
from pipeline.storage.uri import name as last_component
from pipeline.storage.writing import first_write

if TYPE_CHECKING:
    from pipeline.style_model import StyleModel

DIGITS = 12
MODEL_FILE = "style.safetensors"


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to convert."""

    from_: str = ""
    """Location of a checkpoint (.pth, .model) of one of the networks that docs/models.md lists."""

    out: str = ""
    """Where the style model goes: a name that ends in .safetensors, or a folder for style.safetensors."""

    name: str | None = None
    """Name of the style; by default the stem of the checkpoint's name."""

    tanh_scale: float | None = None
    """The network ends in a tanh times this, which its keys do not tell: 150 for rrmina's TransformerNetworkTanh."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.from_:
            raise ConfigError("from", self.from_, "is missing", "give --from URI, the location of a checkpoint")
        if not self.out:
            raise ConfigError("out", self.out, "is missing", "give --out URI, where the style model goes")
        if self.tanh_scale is not None:
            check_within("tanh_scale", self.tanh_scale, 1e-3, 1e5)
        if not can_name_folder(self.style_name):
            raise ConfigError("name", self.style_name, "is no folder name", "give another --name")

    @property
    def style_name(self) -> str:
        """Name of the style."""
        file = last_component(self.from_)
        return self.name or file.rpartition(".")[0] or file

    @property
    def out_uri(self) -> str:
        """Location of the style model."""
        uri = resolve(self.out)
        return uri if uri.endswith(".safetensors") else join(uri, MODEL_FILE)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to write, and how."""

    from_: str = ""
    """Location of a style model, or registry:STYLE[@VERSION]."""

    to: Literal["onnx", "torchscript", "safetensors", "pt-examples"] = "onnx"
    """Format. onnx needs `pip install 'stylemill[onnx]'`; pt-examples is a checkpoint for pytorch/examples."""

    out: str = ""
    """Where the file goes: a name with a suffix, or a folder."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.from_:
            raise ConfigError("from", self.from_, "is missing", "give --from URI, the location of a style model")
        if not self.out:
            raise ConfigError("out", self.out, "is missing", "give --out URI, where the file goes")

    def out_uri(self, style: str, suffix: str) -> str:
        """Location of the file; in a folder it is called after the style."""
        uri = resolve(self.out)
        return uri if "." in last_component(uri) else join(uri, style + suffix)


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Which model."""

    uri: str = ""
    """Location of a style model, or registry:STYLE[@VERSION]."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.uri:
            raise ConfigError("uri", self.uri, "is missing", "give the location of a style model")


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand."""
    return run_subcommand("models", SUBCOMMANDS, arguments)


def import_model(config: ImportConfig) -> int:
    """Convert a checkpoint and say what it was."""
    from pipeline.exchange.convert import convert
    from pipeline.style_model import save_style_model

    storage = Storage(config.storage)
    data = _read(storage, "from", config.from_)
    model = convert(data, source=config.from_, name=config.style_name, tanh_scale=config.tanh_scale)
    with first_write(config.out):
        saved = save_style_model(storage, config.out_uri, model)
    imported = saved.metadata["imported"]
    print(f"{config.from_} is a checkpoint of {imported['layout']}, sha256 {imported['sha256'][:DIGITS]}")
    for key, value in imported["notes"].items():
        print(f"  {key}: {value}")
    print(f"{saved.name}@{saved.version}: {config.out_uri}, sha256 {saved.sha256[:DIGITS]}")
    return 0


def export_model(config: ExportConfig) -> int:
    """Write a style model in another format, checked against the network."""
    from pipeline.exchange.export import SUFFIXES, check_format, export

    check_format(config.to)
    storage = Storage(config.storage)
    _, model = _load(storage, config.from_, config.registry)
    exported = export(model, config.to)
    uri = config.out_uri(model.name, SUFFIXES[config.to])
    with first_write(config.out):
        storage.write_bytes(uri, exported.data)
    print(f"{model.name}@{model.version} as {config.to}: {uri}, {len(exported.data):,} bytes")
    print(f"  {exported.description}")
    print(f"  read back, it differs from the network by at most {exported.difference:.4f} of 255 levels")
    return 0


def show_model(config: ShowConfig) -> int:
    """Print what a style model is, how it came about and what it costs here."""
    from jobs.model_card import model_card

    storage = Storage(config.storage)
    uri, model = _load(storage, config.uri, config.registry)
    for heading, text in model_card(storage, uri, model):
        print(f"{heading:<12}{text}")
    return 0


def _load(storage: Storage, uri: str, registry: str | None) -> tuple[str, StyleModel]:
    """Return where a model lies, and the model."""
    from pipeline.registry import locate_model
    from pipeline.style_model import load_style_model

    located = locate_model(storage, uri, registry)
    return located, load_style_model(storage, located)


def _read(storage: Storage, field_name: str, uri: str) -> bytes:
    """Read a file of bounded size; ConfigError if there is none."""
    from pipeline.errors import ObjectNotFound
    from pipeline.exchange.checkpoint import MAX_BYTES

    located = resolve(uri)
    try:
        size_bytes = storage.stat(located).size_bytes
        if size_bytes > MAX_BYTES:
            problem = f"holds {size_bytes / 2**20:,.0f} MiB, more than any style network"
            raise ConfigError(field_name, uri, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")
        return storage.read_bytes(located)
    except ObjectNotFound as error:
        raise ConfigError(field_name, uri, "does not exist", "give the location of a file") from error


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "import": Subcommand(
        does="convert a checkpoint of another implementation into a style model",
        config=ImportConfig,
        run=import_model,
        positional="from",
    ),
    "export": Subcommand(
        does="write a style model for other programs: ONNX, TorchScript, safetensors, pytorch/examples",
        config=ExportConfig,
        run=export_model,
        positional="from",
    ),
    "show": Subcommand(
        does="say what a style model is, how it was trained and what it costs on this machine",
        config=ShowConfig,
        run=show_model,
        positional="uri",
    ),
}
