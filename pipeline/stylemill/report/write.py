"""Reads what a run wrote and writes the page about it.

``load_training_report`` and ``load_bulk_report`` read a finished run; ``write_*_report`` render a page and store it.
A page leaves out what cannot be read (the style image, a sample, a pair), with a warning in the log.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from stylemill.errors import ConfigError, ImageError, StorageError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import iter_parts, load_success
from stylemill.manifest.schema import read_parquet
from stylemill.report.pictures import Pair, Picture, embed, palette
from stylemill.report.run_pages import (
    BulkReport,
    DemoReport,
    Details,
    StyleCard,
    TrainingReport,
    render_bulk_report,
    render_demo_report,
    render_training_report,
)
from stylemill.report.summary import choose_candidates, summarize
from stylemill.storage import Storage, join, resolve
from stylemill.style_file import StyleHeader, load_style_header, load_style_headers

log = logging.getLogger(__name__)

NUM_PAIRS = 12
"""Images before and after on the page about a bulk run."""
_SAMPLE_SIDE_PX = 1200


def load_training_report(
    storage: Storage, out: str, *, facts: Mapping[str, object] | None = None, events: Sequence[str] = ()
) -> TrainingReport:
    """Read the report on a finished training run.

    Args:
        storage: storage of the run.
        out: output location of the run.
        facts: further facts for the end of the page.
        events: resumes, rollbacks and the like, one sentence each.

    Raises:
        ConfigError: the style model does not exist.
        StorageError: storage failed beyond its retries.
    """
    headers = _trained_headers(storage, out)
    header = headers[0]
    found = sorted(item.uri for item in storage.list_objects(join(out, "samples")))
    samples = [(uri, _step(uri)) for uri in found if _step(uri) is not None]
    known: dict[str, object] = {
        "style": "; ".join(f"{each.name}, version {each.version}" for each in headers),
        "SHA-256": "; ".join(each.sha256 for each in headers),
        "style image's SHA-256": header.metadata.get("style_image_sha256", "–"),
        "loss network": header.metadata.get("loss_network", "–"),
        "loss network's SHA-256": header.metadata.get("loss_network_sha256", "–"),
        "trained at": header.metadata.get("trained_at", "–"),
    }
    return training_report(
        style_name=", ".join(each.name for each in headers),
        style_image=_style_image(storage, header),
        metrics=read_parquet(storage.read_bytes(join(out, "metrics.parquet"))),
        samples=[(f"step {step:,}", storage.read_bytes(uri)) for uri, step in samples],
        events=events,
        facts={**known, **(facts or {})},
        config=_config(storage, join(out, "config.yaml")),
    )


def _trained_headers(storage: Storage, out: str) -> list[StyleHeader]:
    """Return the headers of the styles that a run trained: of those in its file, the ones of the newest training."""
    headers = load_style_headers(storage, join(out, "style.safetensors"))
    together = headers[-1].metadata.get("trained_together", [headers[-1].name])
    return [header for header in headers if header.name in together] or headers[-1:]


def training_report(
    *,
    style_name: str,
    style_image: bytes | None,
    metrics: pa.Table,
    samples: Sequence[tuple[str, bytes]] = (),
    events: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
) -> TrainingReport:
    """Build the report on a training run from its data.

    Args:
        style_name: name of the style.
        style_image: encoded style image; None if it is not available.
        metrics: rows of ``metrics.parquet``.
        samples: (caption, encoded grid of contents over results), oldest first; the page shows at most three.
        events: resumes, rollbacks and the like, one sentence each.
        facts: short facts by name for the end of the page.
        config: settings of the run.
    """
    chosen = samples if len(samples) <= 3 else [samples[0], samples[(len(samples) - 1) // 2], samples[-1]]
    pictures: list[tuple[str, Picture]] = []
    for caption, data in chosen:
        try:
            alt = f"Photographs above, paintings below, {caption}"
            pictures.append((caption, embed(data, alt=alt, max_side_px=_SAMPLE_SIDE_PX)))
        except ImageError as error:
            log.warning("the page leaves out the samples of %s: %s", caption, error)
    return TrainingReport(
        style=style_card(style_name, style_image),
        metrics=metrics,
        samples=pictures,
        num_samples=len(samples),
        events=events,
        details=Details(facts=facts or {}, config=config or {}),
    )


def load_bulk_report(
    storage: Storage,
    layout: RunLayout,
    *,
    facts: Mapping[str, object] | None = None,
    first_key: str | None = None,
    style_images: Mapping[str, bytes] | None = None,
) -> BulkReport:
    """Read the report on a committed bulk run, one part of its manifest at a time.

    Args:
        storage: storage of the run.
        layout: layout of the run.
        facts: further facts for the end of the page.
        first_key: key of the first pair.
        style_images: encoded style images of styles whose model names none that exists.

    Raises:
        ConfigError: the run is not committed.
        StorageError: storage failed beyond its retries.
    """
    success = load_success(storage, layout)
    headers = [load_style_header(storage, layout.model_uri(style["name"])) for style in success.styles]
    known: dict[str, object] = {
        "run": layout.run_id,
        "fingerprint": success.fingerprint,
        **{f"model {header.name}": f"version {header.version}, SHA-256 {header.sha256}" for header in headers},
        "manifest": layout.manifest_uri,
        "committed": success.finished_at,
    }
    return bulk_report(
        storage,
        run_id=layout.run_id,
        parts=iter_parts(storage, layout, success),
        style_images={header.name: _style_image(storage, header) for header in headers} | dict(style_images or {}),
        facts={**known, **(facts or {})},
        config=_config(storage, layout.config_uri),
        first_key=first_key,
    )


def bulk_report(
    storage: Storage,
    *,
    run_id: str,
    parts: pa.Table | Iterable[pa.Table],
    style_images: Mapping[str, bytes | None] | None = None,
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    num_pairs: int = NUM_PAIRS,
    first_key: str | None = None,
) -> BulkReport:
    """Build the report on a bulk run from its manifest; reads the images of its pairs.

    Args:
        storage: storage of sources and outputs.
        run_id: identity of the run.
        parts: rows of the manifest, in one table or part by part.
        style_images: encoded style images by style name, None where one is not available.
        facts: short facts by name for the end of the page.
        config: settings of the run.
        num_pairs: maximum number of pairs.
        first_key: key of the first pair, if it is among the images of the run.

    Returns:
        The report, without pairs whose images cannot be read.
    """
    summary = summarize(parts)
    rows = choose_candidates(summary, num_pairs, first_key=first_key)
    pairs = [pair for pair in (_load_pair(storage, row) for row in rows) if pair is not None]
    images = style_images or {}
    names = [name for name, _ in summary.styles.most_common(20)] or list(images)
    return BulkReport(
        run_id=run_id,
        summary=summary,
        styles=[style_card(name, images.get(name)) for name in names],
        pairs=pairs,
        details=Details(facts=facts or {}, config=config or {}),
    )


def _load_pair(storage: Storage, row: Mapping[str, Any]) -> Pair | None:
    key = row["key"]
    try:
        before = embed(storage.read_bytes(row["source_uri"]), alt=f"{key}, the original")
        after = embed(storage.read_bytes(row["output_uri"]), alt=f"{key}, repainted in {row['style']}")
    except (StorageError, ImageError) as error:
        log.warning("the page leaves out %s: %s", key, error)
        return None
    note = f"{row['width_px']} × {row['height_px']} px, {(row['output_format'] or '').upper()}"
    locations = {"Photograph": row["source_uri"], "Painting": row["output_uri"]}
    return Pair(name=key, before=before, after=after, note=note, style=row["style"], locations=locations)


def write_training_report(storage: Storage, out: str, report: TrainingReport) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_training_report(report))


def write_bulk_report(storage: Storage, layout: RunLayout, report: BulkReport) -> str:
    """Write ``OUT/runs/RUN_ID/report/index.html`` and return its location."""
    return _write(storage, layout.report_uri, render_bulk_report(report))


def write_demo_report(storage: Storage, out: str, report: DemoReport) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_demo_report(report))


def _write(storage: Storage, uri: str, page: str) -> str:
    storage.write_bytes(uri, page.encode("utf-8"))
    return uri


def style_card(name: str, image: bytes | None) -> StyleCard:
    """Return the style as pages show it; an image that cannot be decoded is left out with a warning."""
    if image is None:
        return StyleCard(name=name)
    try:
        picture = embed(image, alt=f"The style image of {name}")
        return StyleCard(name=name, picture=picture, colours=palette(image))
    except ImageError as error:
        log.warning("the page shows no picture of the style %s: %s", name, error)
        return StyleCard(name=name)


def _step(uri: str) -> int | None:
    stem = uri.rpartition("/")[2].removeprefix("step-").removesuffix(".jpg")
    return int(stem) if stem.isdecimal() else None


def _config(storage: Storage, uri: str) -> Mapping[str, Any]:
    config = yaml.safe_load(storage.read_bytes(uri))
    return config if isinstance(config, Mapping) else {}


def _style_image(storage: Storage, header: StyleHeader) -> bytes | None:
    """Return the style image of the training if it still exists and has not changed, else the small one of the file."""
    settings = header.metadata.get("config")
    uri = settings.get("style_image") if isinstance(settings, Mapping) else None
    if not isinstance(uri, str):
        return header.picture
    try:
        data = storage.read_bytes(resolve(uri))
    except (StorageError, ConfigError) as error:
        log.info("the page shows the small picture of the style %s: %s", header.name, error)
        return header.picture
    is_same = hashlib.sha256(data).hexdigest() == header.metadata.get("style_image_sha256")
    return data if is_same else header.picture
