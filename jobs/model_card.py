"""What ``stylemill models show`` says about a style model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.errors import StorageError
from pipeline.nn.architecture import Architecture
from pipeline.nn.pixel_convention import PixelConvention
from pipeline.storage import Storage, join
from pipeline.storage.uri import parent
from pipeline.style_model import StyleModel
from pipeline.training.config import TrainConfig

DIGITS = 12
TRIAL_SIDE_PX = 512
TRIALS = 3


def model_card(storage: Storage, uri: str, model: StyleModel) -> Iterator[tuple[str, str]]:
    """Yield what a model is, as pairs of a heading and a sentence; the last ones take a second to measure."""
    architecture, metadata = model.architecture, model.metadata
    num_parameters = sum(tensor.numel() for tensor in model.state_dict.values())
    yield "style", f"{model.name}, version {model.version}"
    yield "file", uri
    yield "sha256", model.sha256
    yield "network", f"{_network(architecture)}; {num_parameters:,} parameters"
    yield "pixels", _pixels(architecture.pixels)
    yield from _history(metadata)
    yield "sample", _sample(storage, uri) or "none beside the file"
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
    """Yield how a model was trained, as far as it says so; metadata may hold anything."""
    imported = metadata.get("imported")
    if isinstance(imported, dict):
        yield (
            "imported",
            f"from a checkpoint of {imported.get('layout')}, sha256 {str(imported.get('sha256'))[:DIGITS]}",
        )
        notes = imported.get("notes")
        if isinstance(notes, dict) and notes:
            yield "it says", ", ".join(f"{key} {value}" for key, value in notes.items())
    config = metadata.get("config")
    if isinstance(config, dict):
        seen = f"{metadata.get('steps')} steps of {config.get('batch_size')} crops of {config.get('crop_px')} px"
        yield "trained", f"{seen} from {metadata.get('num_content')} images, {metadata.get('trained_at')}"
        terms = [name for name in ("content", "style", "tv", "grid") if f"{name}_weight" in config]
        weights = ", ".join(f"{name} {config[f'{name}_weight']}" for name in terms)
        network = f"{metadata.get('loss_network')}, sha256 {str(metadata.get('loss_network_sha256'))[:DIGITS]}"
        yield "loss", f"{network}; weights: {weights}"
        if metadata.get("teacher_sha256"):
            weight = config.get("teacher_weight", TrainConfig.teacher_weight)
            yield "teacher", f"sha256 {str(metadata['teacher_sha256'])[:DIGITS]}, weight {weight}"
        image = f"{config.get('style_image')}, sha256 {str(metadata.get('style_image_sha256'))[:DIGITS]}"
        yield "style image", f"{image}, at {config.get('style_size_px')} px"
    tail = metadata.get("loss_tail")
    losses = [loss for loss in tail if isinstance(loss, int | float)] if isinstance(tail, list) else []
    if losses:
        yield "last loss", f"{sum(losses) / len(losses):.4f}, mean of the last {len(losses)} steps"
    if not isinstance(imported, dict) and not isinstance(config, dict):
        yield "trained", "the file does not say how"


def _sample(storage: Storage, uri: str) -> str | None:
    """Return the newest sample sheet that training left beside the file, or None."""
    try:
        samples = [found.uri for found in storage.list_objects(join(parent(uri), "samples"))]
    except StorageError:
        return None  # a location that cannot be listed, such as a web server's
    return max((sample for sample in samples if sample.endswith(".jpg")), default=None)


def _cost(model: StyleModel) -> Iterator[tuple[str, str]]:
    import torch

    from pipeline.nn.fast import FastNet
    from pipeline.nn.fast.description import folded, not_folded

    net = FastNet(model.build_network(), precision="auto")
    grain = np.random.default_rng(0).integers(0, 256, (TRIAL_SIDE_PX, TRIAL_SIDE_PX, 3), dtype=np.uint8)
    net.stylize(grain)  # what is done once is not the cost of an image
    seconds = []
    for _ in range(TRIALS):
        start_s = time.perf_counter()
        net.stylize(grain)
        seconds.append(time.perf_counter() - start_s)
    per_megapixel = min(seconds) / (TRIAL_SIDE_PX**2 / 1e6)
    threads = torch.get_num_threads()
    where = f"here, {net.precision} on {threads} thread" + "s" * (threads > 1)
    how = f"best of {TRIALS} images of {TRIAL_SIDE_PX} x {TRIAL_SIDE_PX} px"
    yield "cost", f"{per_megapixel:.3f} s per megapixel {where} ({how})"
    yield "fast form", "; ".join(folded(model.architecture))
    yield "not folded", "; ".join(not_folded(model.architecture)) or "nothing"
