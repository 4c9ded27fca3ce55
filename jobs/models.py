"""``stylemill models import``: style models from other implementations, for other programs, and what one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.arguments import Subcommand, run_subcommand
from pipeline.checks import check_within
from pipeline.errors import ConfigError
from pipeline.storage import Storage, StorageOptions, join, resolve
from pipeline.storage.uri import key_problem
from pipeline.storage.uri import name as last_component

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
        if "/" in self.style_name or key_problem(self.style_name):
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
    saved = save_style_model(storage, config.out_uri, model)
    imported = saved.metadata["imported"]
    print(f"{config.from_} is a checkpoint of {imported['layout']}, sha256 {imported['sha256'][:DIGITS]}")
    for key, value in imported["notes"].items():
        print(f"  {key}: {value}")
    print(f"{saved.name}@{saved.version}: {config.out_uri}, sha256 {saved.sha256[:DIGITS]}")
    return 0


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
}
