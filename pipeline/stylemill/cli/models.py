"""``stylemill models import|export|show``: convert models from and to other implementations, and describe one.

``model_files.py`` has the verbs that put styles together and take them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stylemill.cli.arguments import Subcommand, run_subcommand
from stylemill.cli.model_files import DIGITS, print_styles
from stylemill.cli.model_files import SUBCOMMANDS as FILE_SUBCOMMANDS
from stylemill.config import check_within
from stylemill.errors import ConfigError, StorageError
from stylemill.nn.architecture import Architecture, PixelConvention
from stylemill.storage import Storage, StorageOptions, join, resolve
from stylemill.storage.uri import can_name_folder, parent
from stylemill.storage.uri import name as last_component
from stylemill.storage.user_errors import writing_output
from stylemill.style_model import StyleModel
from stylemill.training.config import TrainConfig

MODEL_FILE = "style.safetensors"


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of ``models import``."""

    from_: str = ""
    """Location of a checkpoint (.pth, .model) of one of the networks listed in docs/models.md."""

    out: str = ""
    """Location of the style model to write: a name that ends in .safetensors, or a folder for style.safetensors."""

    name: str | None = None
    """Name of the style; by default the stem of the checkpoint's name."""

    tanh_scale: float | None = None
    """Factor after the final tanh, which the keys of a checkpoint omit: 150 for rrmina's TransformerNetworkTanh."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.from_:
            raise ConfigError("from", None, "is required", "give the location of a checkpoint")
        if not self.out:
            raise ConfigError("out", None, "is required", "give the location of the style model to write")
        if self.tanh_scale is not None:
            check_within("tanh_scale", self.tanh_scale, 1e-3, 1e5)
        if not can_name_folder(self.style_name):
            raise ConfigError("name", self.style_name, "cannot name a folder", "give another --name")

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
    """Settings of ``models export``."""

    from_: str = ""
    """Location of a style model, FILE#STYLE, or registry:STYLE[@VERSION]. Several styles of a file become one ONNX
    graph, with their weights as a second input."""

    to: Literal["onnx", "torchscript", "safetensors", "pt-examples"] = "onnx"
    """Format. onnx needs `pip install 'stylemill[onnx]'`; pt-examples is a checkpoint for pytorch/examples."""

    out: str = ""
    """Location of the file to write: a name with a suffix, or a folder."""

    registry: str | None = None
    """Registry that registry:STYLE refers to; by default STYLEMILL_REGISTRY of the environment."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.from_:
            raise ConfigError("from", None, "is required", "give the location of a style model")
        if not self.out:
            raise ConfigError("out", None, "is required", "give the location of the file to write")

    def out_uri(self, style: str, suffix: str) -> str:
        """Return the location of the file; in a folder it is named after the style."""
        uri = resolve(self.out)
        return uri if "." in last_component(uri) else join(uri, style + suffix)


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Settings of ``models show``."""

    uri: str = ""
    """Location of a style model, FILE#STYLE, or registry:STYLE[@VERSION]."""

    registry: str | None = None
    """Registry that registry:STYLE refers to; by default STYLEMILL_REGISTRY of the environment."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.uri:
            raise ConfigError("uri", None, "is required", "give the location of a style model")


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_subcommand("models", SUBCOMMANDS, arguments)


def import_model(config: ImportConfig) -> int:
    """Convert a checkpoint and print what it was."""
    from stylemill.exchange.convert import convert
    from stylemill.style_model import save_style_model

    storage = Storage(config.storage)
    data = _read(storage, "from", config.from_)
    model = convert(data, source=config.from_, name=config.style_name, tanh_scale=config.tanh_scale)
    with writing_output(config.out):
        saved = save_style_model(storage, config.out_uri, model)
    imported = saved.metadata["imported"]
    print(f"{config.from_} is a checkpoint of {imported['layout']}, sha256 {imported['sha256'][:DIGITS]}")
    for key, value in imported["notes"].items():
        print(f"  {key}: {value}")
    print(f"{saved.name}@{saved.version}: {config.out_uri}, sha256 {saved.sha256[:DIGITS]}")
    return 0


def export_model(config: ExportConfig) -> int:
    """Write a style model in another format, after a comparison with the network."""
    from stylemill.exchange.export import SUFFIXES, check_format, export, export_together
    from stylemill.style_choice import load_styles

    check_format(config.to)
    storage = Storage(config.storage)
    if config.to == "onnx":
        models = load_styles(storage, [config.from_], config.registry, with_photo=True)
        if len(models) > 1:
            exported, uri = export_together(models), config.out_uri("styles", SUFFIXES[config.to])
            with writing_output(config.out):
                storage.write_bytes(uri, exported.data)
            print(f"{len(models)} styles as {config.to}: {uri}, {len(exported.data):,} bytes")
            print(f"  {exported.description}")
            print(f"  read back, each differs from its network by at most {exported.difference:.4f} of 255 levels")
            return 0
    _, model = _load(storage, config.from_, config.registry)
    exported = export(model, config.to)
    uri = config.out_uri(model.name, SUFFIXES[config.to])
    with writing_output(config.out):
        storage.write_bytes(uri, exported.data)
    print(f"{model.name}@{model.version} as {config.to}: {uri}, {len(exported.data):,} bytes")
    print(f"  {exported.description}")
    print(f"  read back, it differs from the network by at most {exported.difference:.4f} of 255 levels")
    return 0


def show_model(config: ShowConfig) -> int:
    """Print what a style model is, how it was trained and what it costs on this machine."""
    from stylemill.registry import locate_model
    from stylemill.style_file import read_file, split_location, split_styles

    storage = Storage(config.storage)
    location, style = split_location(locate_model(storage, config.uri, config.registry))
    files = split_styles(read_file(storage, location), source=location) if style is None else []
    if len(files) > 1:
        print(f"{'file':<12}{location}")
        print(f"{'styles':<12}{len(files)}, each shown by: stylemill models show {config.uri}#STYLE")
        print_styles(files, location)
        return 0
    uri, model = _load(storage, config.uri, config.registry)
    for heading, text in model_card(storage, uri, model):
        print(f"{heading:<12}{text}")
    return 0


def _load(storage: Storage, uri: str, registry: str | None) -> tuple[str, StyleModel]:
    """Return the location of a model, and the model."""
    from stylemill.registry import locate_model
    from stylemill.style_model import load_style_model

    located = locate_model(storage, uri, registry)
    return located, load_style_model(storage, located)


def _read(storage: Storage, field_name: str, uri: str) -> bytes:
    """Read a file of bounded size; raise ConfigError if it does not exist or is too large."""
    from stylemill.errors import ObjectNotFound
    from stylemill.exchange.checkpoint import MAX_BYTES

    located = resolve(uri)
    try:
        size_bytes = storage.stat(located).size_bytes
        if size_bytes > MAX_BYTES:
            problem = f"has {size_bytes / 2**20:,.0f} MiB, more than any style network"
            raise ConfigError(field_name, uri, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")
        return storage.read_bytes(located)
    except ObjectNotFound as error:
        raise ConfigError(field_name, uri, "does not exist", "give the location of a file") from error


def model_card(storage: Storage, uri: str, model: StyleModel) -> Iterator[tuple[str, str]]:
    """Yield a description of a model as pairs of heading and text; the last ones take a second to measure."""
    architecture, metadata = model.architecture, model.metadata
    num_parameters = sum(tensor.numel() for tensor in model.state_dict.values())
    yield "style", f"{model.name}, version {model.version}"
    yield "file", uri
    yield "sha256", model.sha256
    yield "network", f"{_network(architecture)}; {num_parameters:,} parameters"
    yield "pixels", _pixels(architecture.pixels)
    yield from _history(metadata)
    yield "sample", _sample(storage, uri) or "none next to the file"
    yield from _cost(model)


def _network(architecture: Architecture) -> str:
    words = [f"width {architecture.width:g}", f"{architecture.upsampling} upsampling", f"{architecture.norm} norm"]
    words.append(f"{architecture.residual} residual blocks")
    if architecture.output == "tanh":
        words.append("ends in a tanh")
    return ", ".join(words)


def _pixels(pixels: PixelConvention) -> str:
    order = "red first" if pixels.channel_order == "rgb" else "blue first"
    normal = "ImageNet-normalised" if pixels.normalisation == "imagenet" else "not normalised"
    return f"input_scale {pixels.input_scale:.6g}, output_scale {pixels.output_scale:g}, {order}, {normal}"


def _history(metadata: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how a model was trained, as far as its metadata, which may hold anything, records it."""
    imported = metadata.get("imported")
    if isinstance(imported, dict):
        yield (
            "imported",
            f"from a checkpoint of {imported.get('layout')}, sha256 {str(imported.get('sha256'))[:DIGITS]}",
        )
        notes = imported.get("notes")
        if isinstance(notes, dict) and notes:
            yield "notes", ", ".join(f"{key} {value}" for key, value in notes.items())
    config = metadata.get("config")
    if isinstance(config, dict):
        seen = f"{metadata.get('steps')} steps of {config.get('batch_size')} crops of {config.get('crop_px')} px"
        yield "trained", f"{seen} from {metadata.get('num_content')} images, {metadata.get('trained_at')}"
        terms = [name for name in ("content", "style", "tv", "grid", "lattice") if f"{name}_weight" in config]
        weights = ", ".join(f"{name} {config[f'{name}_weight']}" for name in terms)
        network = f"{metadata.get('loss_network')}, sha256 {str(metadata.get('loss_network_sha256'))[:DIGITS]}"
        yield "loss", f"{network}; weights: {weights}"
        origin = metadata.get("loss_weights")
        if isinstance(origin, dict):
            yield "loss network from", f"{origin.get('source')}; {origin.get('licence')}"
        if metadata.get("teacher_sha256"):
            weight = config.get("teacher_weight", TrainConfig.teacher_weight)
            yield "teacher", f"sha256 {str(metadata['teacher_sha256'])[:DIGITS]}, weight {weight}"
        named = config.get("style_image") or "none: the photographs themselves"
        image = f"{named}, sha256 {str(metadata.get('style_image_sha256'))[:DIGITS]}"
        yield "style image", f"{image}, at {config.get('style_size_px')} px"
    tail = metadata.get("loss_tail")
    losses = [loss for loss in tail if isinstance(loss, int | float)] if isinstance(tail, list) else []
    if losses:
        yield "last loss", f"{sum(losses) / len(losses):.4f}, mean of the last {len(losses)} steps"
    if not isinstance(imported, dict) and not isinstance(config, dict):
        yield "trained", "not recorded in the file"


def _sample(storage: Storage, uri: str) -> str | None:
    """Return the newest sample picture that training wrote next to the file, or None."""
    try:
        samples = [found.uri for found in storage.list_objects(join(parent(uri), "samples"))]
    except StorageError:
        return None  # the location cannot be listed, such as a web server's
    return max((sample for sample in samples if sample.endswith(".jpg")), default=None)


def _cost(model: StyleModel) -> Iterator[tuple[str, str]]:
    from stylemill.nn.cpu.layers import describe_folded, describe_unfolded
    from stylemill.nn.fast_net import FastNet
    from stylemill.nn.speed import NUM_TRIALS, TRIAL_SIDE_PX, measure_speed

    speed = measure_speed(FastNet(model.build_network(), precision="auto"))
    threads = speed.num_threads
    where = f"on this machine, {speed.precision} on {threads} thread" + "s" * (threads > 1)
    how = f"best of {NUM_TRIALS} images of {TRIAL_SIDE_PX} x {TRIAL_SIDE_PX} px"
    yield "cost", f"{speed.seconds_per_megapixel:.3f} s per megapixel {where} ({how})"
    yield "fast form", "; ".join(describe_folded(model.architecture))
    yield "not folded", "; ".join(describe_unfolded(model.architecture)) or "nothing"


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
        does="print the architecture and training history of a style model, and its speed on this machine",
        config=ShowConfig,
        run=show_model,
        positional="uri",
    ),
    **FILE_SUBCOMMANDS,
}
