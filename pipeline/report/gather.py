"""From a run's folder to its story: everything a page shows is read back from what the run wrote."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.errors import ConfigError, StorageError
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.read import iter_parts, load_success
from pipeline.report.pages import BulkStory, TrainingStory
from pipeline.report.write import bulk_story, training_story
from pipeline.storage import Storage, join, resolve
from pipeline.style_model import StyleHeader, load_style_header

log = logging.getLogger(__name__)


def gather_bulk(
    storage: Storage,
    layout: RunLayout,
    *,
    facts: Mapping[str, object] | None = None,
    first_key: str | None = None,
) -> BulkStory:
    """Read the story of a committed bulk run, one part of its manifest at a time.

    Args:
        storage: where the run lies.
        layout: of the run.
        facts: more to say at the foot of the page.
        first_key: key of the pair that opens the page.

    Raises:
        ConfigError: the run is not committed.
        StorageError: storage failed beyond its retries.
    """
    success = load_success(storage, layout)
    headers = [load_style_header(storage, layout.model_uri(style["name"])) for style in success.styles]
    said: dict[str, object] = {
        "run": layout.run_id,
        "fingerprint": success.fingerprint,
        **{f"model {header.name}": f"version {header.version}, SHA-256 {header.sha256}" for header in headers},
        "manifest": layout.manifest_uri,
        "committed": success.finished_at,
    }
    return bulk_story(
        storage,
        run_id=layout.run_id,
        parts=iter_parts(storage, layout, success),
        style_images={header.name: _style_image(storage, header) for header in headers},
        facts={**said, **(facts or {})},
        config=_config(storage, layout.config_uri),
        first_key=first_key,
    )


def gather_training(
    storage: Storage, out: str, *, facts: Mapping[str, object] | None = None, events: Sequence[str] = ()
) -> TrainingStory:
    """Read the story of a finished training run.

    Args:
        storage: where the run lies.
        out: its output location.
        facts: more to say at the foot of the page.
        events: resumes, rollbacks and the like, one sentence each.

    Raises:
        ConfigError: there is no style model.
        StorageError: storage failed beyond its retries.
    """
    header = load_style_header(storage, join(out, "style.safetensors"))
    found = sorted(item.uri for item in storage.list_objects(join(out, "samples")))
    samples = [(uri, _step(uri)) for uri in found if _step(uri) is not None]
    said: dict[str, object] = {
        "style": f"{header.name}, version {header.version}",
        "SHA-256": header.sha256,
        "style image's SHA-256": header.metadata.get("style_image_sha256", "–"),
        "loss network": header.metadata.get("loss_network", "–"),
        "loss network's SHA-256": header.metadata.get("loss_network_sha256", "–"),
        "trained at": header.metadata.get("trained_at", "–"),
    }
    return training_story(
        style_name=header.name,
        style_image=_style_image(storage, header),
        metrics=pq.read_table(pa.BufferReader(storage.read_bytes(join(out, "metrics.parquet")))),
        samples=[(f"step {step:,}", storage.read_bytes(uri)) for uri, step in samples],
        events=events,
        facts={**said, **(facts or {})},
        config=_config(storage, join(out, "config.yaml")),
    )


def _step(uri: str) -> int | None:
    stem = uri.rpartition("/")[2].removeprefix("step-").removesuffix(".jpg")
    return int(stem) if stem.isdecimal() else None


def _config(storage: Storage, uri: str) -> Mapping[str, Any]:
    config = yaml.safe_load(storage.read_bytes(uri))
    return config if isinstance(config, Mapping) else {}


def _style_image(storage: Storage, header: StyleHeader) -> bytes | None:
    """Return the style image from where it was trained, if it is still there and still the same."""
    settings = header.metadata.get("config")
    uri = settings.get("style_image") if isinstance(settings, Mapping) else None
    if not isinstance(uri, str):
        return None
    try:
        data = storage.read_bytes(resolve(uri))
    except (StorageError, ConfigError) as error:
        log.info("the page shows no picture of the style %s: %s", header.name, error)
        return None
    same = hashlib.sha256(data).hexdigest() == header.metadata.get("style_image_sha256")
    return data if same else None
