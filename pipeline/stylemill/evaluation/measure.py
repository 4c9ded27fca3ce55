"""Measure styles on the same images: one row per image and model."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as PillowImage

from stylemill.config import digest
from stylemill.errors import AccessDenied, ConfigError, ImageError, NotAnImage, ObjectNotFound
from stylemill.evaluation.config import MIN_SIDE_PX, EvaluateConfig, check_installed
from stylemill.evaluation.image_metrics import checkerboard, color_shift, structural_similarity
from stylemill.evaluation.judge import Judge, at_size, load_judge, read_named
from stylemill.evaluation.schema import EVALUATION_SCHEMA, model_label, write_measurements
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.manifest.schema import make_table
from stylemill.nn.fast_net import FastNet
from stylemill.registry import locate_model
from stylemill.storage import ObjectStat, Storage, join, resolve
from stylemill.storage.sources import draw_sample, find_sources, stratum_of
from stylemill.storage.uri import is_inside
from stylemill.storage.user_errors import listing_input, write_config
from stylemill.style_model import StyleModel, load_style_model

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluation:
    """A checked evaluation with its models loaded."""

    config: EvaluateConfig
    out: str
    models: dict[str, StyleModel]
    """By NAME-VERSION."""
    judge: Judge
    judge_digest: str
    """Digest of everything that the figures depend on beside model and image."""
    sources: tuple[ObjectStat, ...]


def prepare(storage: Storage, config: EvaluateConfig) -> PreparedEvaluation:
    """Check a config against the world.

    Raises:
        ConfigError: a model, the style image or the content that cannot be read; an output inside the content,
            or that cannot be written.
    """
    check_installed()
    models = _load_models(storage, config)
    style_image = config.judge.style_image or _style_image_of(storage, config, next(iter(models.values())))
    out, content = resolve(config.out), resolve(config.content)
    if is_inside(out, content):
        raise ConfigError("out", config.out, "lies inside the content", "choose a location outside it")
    judge = load_judge(storage, config.judge, style_image=style_image)
    sources = _draw_sources(storage, config, content)
    write_config(storage, config, "evaluate")
    return PreparedEvaluation(
        config=config,
        out=out,
        models=models,
        judge=judge,
        judge_digest=digest({"bench": judge.digest, "size_px": config.size_px})[:16],
        sources=sources,
    )


def evaluate(
    storage: Storage, prepared: PreparedEvaluation, *, on_progress: Callable[[int, int], None] | None = None
) -> pa.Table:
    """Measure every model on every image and write ``OUT/evaluation.parquet`` and ``OUT/images``.

    An image that cannot be decoded is a row for each model, with the reason.

    Args:
        storage: where everything is.
        prepared: what to measure.
        on_progress: told how many of how many images are done.

    Returns:
        Rows of EVALUATION_SCHEMA, in order of key and model.

    Raises:
        ConfigError: a model gives values that are not finite.
        StorageError: storage failed beyond its retries.
    """
    config, num = prepared.config, len(prepared.sources)
    nets = {
        label: FastNet(model.build_network(), precision=config.precision) for label, model in prepared.models.items()
    }
    for net in nets.values():  # the first picture pays for what is set up once
        net.stylize(np.zeros((MIN_SIDE_PX, MIN_SIDE_PX, 3), np.uint8))
    rows: list[dict[str, Any]] = []
    with IsolatedDecoder(DecodeOptions()) as decoder:
        for number, source in enumerate(prepared.sources):
            rows += _rows_of(storage, prepared, nets, decoder, source)
            if on_progress:
                on_progress(number + 1, num)
    table = make_table(rows, EVALUATION_SCHEMA)
    write_measurements(storage, prepared.out, table)
    return table


def _rows_of(
    storage: Storage,
    prepared: PreparedEvaluation,
    nets: dict[str, FastNet],
    decoder: IsolatedDecoder,
    source: ObjectStat,
) -> Iterator[dict[str, Any]]:
    """Yield the row of each model for one image."""
    known = {"key": source.key, "uri": source.uri, "stratum": stratum_of(source.key), "judge": prepared.judge_digest}
    try:
        source_HWC = load_source(storage, decoder, source.uri, prepared.config.size_px)
    except ImageError as failure:
        status = "skipped" if isinstance(failure, NotAnImage) else "failed"
        why = {"status": status, "error_type": failure.error_type, "error": failure.message}
        for label, model in prepared.models.items():
            yield known | why | {"model": label, "model_sha256": model.sha256}
        return
    source_uri = join(prepared.out, "images", "source", source.key + ".png")
    storage.write_bytes(source_uri, to_png(source_HWC))
    known |= {"status": "ok", "source_picture_uri": source_uri}
    known |= {"width_px": source_HWC.shape[1], "height_px": source_HWC.shape[0]}
    for label, net in nets.items():
        result_HWC, seconds = paint(net, source_HWC, uri=label, key=source.key)
        picture_uri = join(prepared.out, "images", label, source.key + ".png")
        storage.write_bytes(picture_uri, to_png(result_HWC))
        yield (
            known
            | measure(prepared.judge, result_HWC, source_HWC)
            | {"model": label, "model_sha256": prepared.models[label].sha256}
            | {"seconds": seconds, "picture_uri": picture_uri}
        )


def load_source(storage: Storage, decoder: IsolatedDecoder, uri: str, size_px: int) -> Image:
    """Return an image as it is measured: upright (H, W, 3) uint8, its shorter side at most ``size_px``.

    Raises:
        ImageError: it cannot be read or decoded, or is too small for the measure of the grid.
    """
    try:
        data = storage.read_bytes(uri)
    except (ObjectNotFound, AccessDenied) as error:
        raise ImageError("Unreadable", str(error)) from error
    image_HWC = at_size(decoder.decode(data).image_HWC, size_px)
    height_px, width_px = image_HWC.shape[:2]
    if min(height_px, width_px) < MIN_SIDE_PX:
        message = f"it has {width_px} x {height_px} px; below {MIN_SIDE_PX} px the grid cannot be measured"
        raise ImageError("TooSmall", message)
    return np.ascontiguousarray(image_HWC)


def paint(net: FastNet, source_HWC: Image, *, uri: str, key: str) -> tuple[Image, float]:
    """Return a repainted image, (H, W, 3) uint8, and the seconds it took.

    Raises:
        ConfigError: the network gives values that are not finite.
    """
    start_s = time.perf_counter()
    result_HWC = net.stylize(source_HWC)
    seconds = time.perf_counter() - start_s
    # A picture of 8 bits shows no NaN: the norms inside the network and the values before rounding do.
    layers = net.statistics(source_HWC)
    inside = [values.numpy() for layer in layers for values in (layer.mean_C, layer.variance_C)]
    if not all(np.isfinite(values).all() for values in (*inside, net.values(source_HWC))):
        cure = "train it again, or try --precision float32"
        raise ConfigError("model", uri, f"gives values that are not finite (NaN) for {key!r}", cure)
    return result_HWC, seconds


def measure(judge: Judge, result_HWC: Image, source_HWC: Image) -> dict[str, Any]:
    """Return the columns that a picture and its source give, except ``seconds``."""
    losses = judge.losses(result_HWC, source_HWC)
    return {
        "total_loss": losses.total,
        "content_loss": losses.content,
        "style_loss": losses.style,
        "style_loss_by_layer": list(losses.style_by_layer),
        "tv_loss": losses.total_variation,
        "grid_loss": losses.grid,
        "checkerboard": checkerboard(result_HWC, source_HWC),
        "color_shift": color_shift(result_HWC, source_HWC),
        "structural_similarity": structural_similarity(result_HWC, source_HWC),
    }


def to_png(image_HWC: Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def _load_models(storage: Storage, config: EvaluateConfig) -> dict[str, StyleModel]:
    models: dict[str, StyleModel] = {}
    for uri in config.model:
        model = load_style_model(storage, locate_model(storage, uri, config.registry))
        label = model_label(model.name, model.version)
        if label in models:
            same = models[label].sha256 == model.sha256
            problem = f"is {'the same model as' if same else 'another model of the name and version of'} one before it"
            raise ConfigError("model", uri, problem, "give each model once, under a version of its own")
        models[label] = model
    return models


def _style_image_of(storage: Storage, config: EvaluateConfig, model: StyleModel) -> str:
    """Return the location of the style image that a model names, if it is still the one it was trained on."""
    uri = model.metadata.get("config", {}).get("style_image")
    if not uri:
        problem = "is not named by the first model"
        raise ConfigError("style_image", None, problem, "give the style's image with --style-image")
    sha256 = hashlib.sha256(read_named(storage, "style_image", uri)).hexdigest()
    if sha256 != model.metadata.get("style_image_sha256", sha256):
        problem = f"is not the image any more that {config.model[0]} was trained on"
        raise ConfigError("style_image", uri, problem, "give the right one with --style-image")
    return str(uri)


def _draw_sources(storage: Storage, config: EvaluateConfig, content: str) -> tuple[ObjectStat, ...]:
    with listing_input("content", config.content):
        found = {item.key: item for item in find_sources(storage, content) if item.problem_type is None}
    if not found:
        raise ConfigError("content", config.content, "holds no images", "give a prefix, glob or file that holds some")
    return tuple(found[key] for key in draw_sample(list(found), config.num_images, seed=config.seed))
