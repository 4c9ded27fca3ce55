"""Measures styles on the same images: one row per image and model.

``prepare`` checks the settings and loads the models. ``evaluate`` paints and measures every image with every model and
writes ``OUT/evaluation.parquet`` and the pictures. An image that cannot be decoded or is too small becomes a row with
the reason; a model whose values are not finite ends the evaluation.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as PillowImage

from stylemill.config import digest
from stylemill.errors import AccessDenied, ConfigError, ImageError, NotAnImage, ObjectNotFound, Unreachable
from stylemill.evaluation import artifacts
from stylemill.evaluation.config import MIN_SIDE_PX, EvaluateConfig, check_installed
from stylemill.evaluation.consistency import crop_difference, strokes
from stylemill.evaluation.image_metrics import Image, checkerboard, color_shift, palette, structural_similarity
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


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluation:
    """A checked evaluation with its models loaded."""

    config: EvaluateConfig
    out: str
    models: dict[str, StyleModel]
    """Models by their label NAME-VERSION."""
    judge: Judge
    judge_digest: str
    """Hash of everything the figures depend on except model and image."""
    sources: tuple[ObjectStat, ...]


def prepare(storage: Storage, config: EvaluateConfig) -> PreparedEvaluation:
    """Check the settings and load models and style image.

    Raises:
        ConfigError: a model, the style image or the content cannot be read, or the output cannot be written or is
            inside the content.
    """
    check_installed()
    models = _load_models(storage, config)
    style_image = config.judge.style_image or _style_image_of(storage, config, next(iter(models.values())))
    out, content = resolve(config.out), resolve(config.content)
    if is_inside(out, content):
        raise ConfigError("out", config.out, "is inside the content", "choose a location outside it")
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

    Args:
        storage: storage of images and output.
        prepared: result of ``prepare``.
        on_progress: called with the numbers of finished and of all images.

    Returns:
        Rows of EVALUATION_SCHEMA, in order of key and model.

    Raises:
        ConfigError: a model returns values that are not finite.
        StorageError: storage failed beyond its retries.
    """
    config, num = prepared.config, len(prepared.sources)
    nets = {
        label: FastNet(model.build_network(), precision=config.precision) for label, model in prepared.models.items()
    }
    for net in nets.values():  # a first, unmeasured picture: one-time setup must not count in ``seconds``
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
    common: dict[str, Any] = {
        "key": source.key,
        "uri": source.uri,
        "stratum": stratum_of(source.key),
        "judge": prepared.judge_digest,
    }
    try:
        source_HWC = load_source(storage, decoder, source.uri, prepared.config.size_px)
    except ImageError as failure:
        status = "skipped" if isinstance(failure, NotAnImage) else "failed"
        reason = {"status": status, "error_type": failure.error_type, "error": failure.message}
        for label, model in prepared.models.items():
            yield common | reason | {"model": label, "model_sha256": model.sha256}
        return
    source_uri = join(prepared.out, "images", "source", source.key + ".png")
    storage.write_bytes(source_uri, to_png(source_HWC))
    common |= {"status": "ok", "source_picture_uri": source_uri}
    common |= {"width_px": source_HWC.shape[1], "height_px": source_HWC.shape[0]}
    common |= {"source_palette": list(palette(source_HWC)), "source_strokes": list(strokes(source_HWC))}
    for label, net in nets.items():
        result_HWC, seconds = paint(net, source_HWC, uri=label, key=source.key)
        picture_uri = join(prepared.out, "images", label, source.key + ".png")
        storage.write_bytes(picture_uri, to_png(result_HWC))
        yield (
            common
            | measure(prepared.judge, result_HWC, source_HWC)
            | {"model": label, "model_sha256": prepared.models[label].sha256}
            | {"crop_difference": crop_difference(net.stylize, source_HWC)}
            | {"palette": list(palette(result_HWC)), "strokes": list(strokes(result_HWC))}
            | {"seconds": seconds, "picture_uri": picture_uri}
        )


def load_source(storage: Storage, decoder: IsolatedDecoder, uri: str, size_px: int) -> Image:
    """Return an image at the size at which it is measured: upright, (H, W, 3) uint8, shorter side at most ``size_px``.

    Raises:
        ImageError: it cannot be read or decoded, or is too small for the grid metrics.
    """
    try:
        data = storage.read_bytes(uri)
    except (ObjectNotFound, AccessDenied, Unreachable) as error:
        raise ImageError("Unreadable", str(error)) from error
    image_HWC = at_size(decoder.decode(data).image_HWC, size_px)
    height_px, width_px = image_HWC.shape[:2]
    if min(height_px, width_px) < MIN_SIDE_PX:
        message = f"it has {width_px} x {height_px} px; the grid metrics need at least {MIN_SIDE_PX} px on each side"
        raise ImageError("TooSmall", message)
    return np.ascontiguousarray(image_HWC)


def paint(net: FastNet, source_HWC: Image, *, uri: str, key: str) -> tuple[Image, float]:
    """Return a repainted image, (H, W, 3) uint8, and the seconds that painting took.

    Raises:
        ConfigError: the network returns values that are not finite.
    """
    start_s = time.perf_counter()
    result_HWC = net.stylize(source_HWC)
    seconds = time.perf_counter() - start_s
    # An 8-bit picture cannot hold NaN, so the statistics of the norms and the values before rounding are checked.
    layers = net.statistics(source_HWC)
    inner = [values.numpy() for layer in layers for values in (layer.mean_C, layer.variance_C)]
    if not all(np.isfinite(values).all() for values in (*inner, net.values(source_HWC))):
        cure = "train it again, or try --precision float32"
        raise ConfigError("model", uri, f"returns values that are not finite (NaN) for {key!r}", cure)
    return result_HWC, seconds


def measure(judge: Judge, result_HWC: Image, source_HWC: Image) -> dict[str, Any]:
    """Return the metrics of a picture and its source by column, except what needs the network."""
    losses = judge.losses(result_HWC, source_HWC)
    return {
        "total_loss": losses.total,
        "content_loss": losses.content,
        "style_loss": losses.style,
        "style_loss_by_layer": list(losses.style_by_layer),
        "tv_loss": losses.total_variation,
        "grid_loss": losses.grid,
        "checkerboard": checkerboard(result_HWC, source_HWC),
        "diagonals": artifacts.diagonals(result_HWC, source_HWC),
        "rim": artifacts.rim(result_HWC, source_HWC),
        "halo": artifacts.halo(result_HWC, source_HWC),
        "blobs": artifacts.blobs(result_HWC, source_HWC),
        "color_shift": color_shift(result_HWC, source_HWC),
        "structural_similarity": structural_similarity(result_HWC, source_HWC),
    }


def to_png(image_HWC: Image) -> bytes:
    """Encode an (H, W, 3) uint8 picture as PNG."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def _load_models(storage: Storage, config: EvaluateConfig) -> dict[str, StyleModel]:
    models: dict[str, StyleModel] = {}
    for uri in config.model:
        model = load_style_model(storage, locate_model(storage, uri, config.registry))
        label = model_label(model.name, model.version)
        if label in models:
            is_same = models[label].sha256 == model.sha256
            problem = "is given twice" if is_same else f"is another model with the name and version {label}"
            raise ConfigError("model", uri, problem, "give each model once, each with its own version")
        models[label] = model
    return models


def _style_image_of(storage: Storage, config: EvaluateConfig, model: StyleModel) -> str:
    """Return the location of the style image in a model's metadata, if the image has not changed since the training."""
    uri = model.metadata.get("config", {}).get("style_image")
    if not uri:
        problem = "is not in the metadata of the first model"
        raise ConfigError("style_image", None, problem, "give it with --style-image")
    sha256 = hashlib.sha256(read_named(storage, "style_image", uri)).hexdigest()
    if sha256 != model.metadata.get("style_image_sha256", sha256):
        problem = f"is no longer the image on which {config.model[0]} was trained"
        raise ConfigError("style_image", uri, problem, "give that image with --style-image")
    return str(uri)


def _draw_sources(storage: Storage, config: EvaluateConfig, content: str) -> tuple[ObjectStat, ...]:
    with listing_input("content", config.content):
        found = {item.key: item for item in find_sources(storage, content) if item.problem_type is None}
    if not found:
        raise ConfigError("content", config.content, "holds no images", "give a prefix, glob or file with images")
    return tuple(found[key] for key in draw_sample(list(found), config.num_images, seed=config.seed))
