"""From tables of measurements to pairs: the figures of two models on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ObjectNotFound, PathConflict
from pipeline.evaluation.schema import model_label, read_measurements
from pipeline.registry import find_version, is_reference
from pipeline.storage import Storage, resolve


def read_evaluations(storage: Storage, locations: Sequence[str]) -> pa.Table:
    """Return the rows of one or more evaluations.

    Raises:
        ConfigError: a location without a table of measurements, or tables of different judges.
        StorageError: storage failed beyond its retries.
    """
    tables = []
    for location in locations:
        try:
            tables.append(read_measurements(storage, resolve(location)))
        except (ObjectNotFound, PathConflict):
            cure = "give the OUT of `stylemill evaluate`"
            raise ConfigError("evaluation", location, "holds no evaluation.parquet", cure) from None
        except ValueError as error:
            cure = "run `stylemill evaluate` again"
            raise ConfigError("evaluation", location, f"holds no table of measurements ({error})", cure) from None
    table = pa.concat_tables(tables)
    if len(set(table["judge"].to_pylist())) > 1:
        problem = "were measured under different losses, style images or sizes"
        raise ConfigError("evaluation", list(locations), problem, "measure both models with the same settings")
    return table


def measured_name(storage: Storage, name: str, registry: str | None) -> str:
    """Return what the tables call a model that is named so; of a reference into a registry, the version that it means.

    Raises:
        ConfigError: no registry is named, it is none, or it has no such style or version.
    """
    if not is_reference(name):
        return name
    version = find_version(storage, name, registry)
    return model_label(version.style, version.version)


def choose_models(table: pa.Table, champion: str | None, candidate: str | None) -> tuple[str, str]:
    """Return champion and candidate; those not named are the models of the table in their order.

    Raises:
        ConfigError: an unknown model, or not exactly two to choose from.
    """
    models = list(dict.fromkeys(table["model"].to_pylist()))
    for field, name in (("champion", champion), ("candidate", candidate)):
        if name is not None and name not in models:
            raise ConfigError(field, name, "was not measured", "use one of " + ", ".join(models))
    if champion is None or candidate is None:
        if len(models) != 2:
            problem = f"is not clear among {len(models)} models"
            raise ConfigError("candidate", candidate, problem, f"give --champion and --candidate: {', '.join(models)}")
        champion = champion or next(model for model in models if model != candidate)
        candidate = next(model for model in models if model != champion)
    return champion, candidate


def pair_up(table: pa.Table, metric: str, champion: str, candidate: str) -> NDArray[np.float64]:
    """Return the (n, 2) figures of champion and candidate on the images that both were measured on, in order of key.

    Raises:
        ConfigError: they have no image in common, an image was measured twice, or a figure is not finite.
    """
    figures: dict[str, dict[str, float]] = {champion: {}, candidate: {}}
    columns = (table[name].to_pylist() for name in ("model", "key", "status", metric))
    for model, key, status, value in zip(*columns, strict=True):
        if model not in figures or status != "ok":
            continue
        if key in figures[model]:
            problem = f"measures {model} twice on {key!r}"
            raise ConfigError("evaluation", None, problem, "give each evaluation once")
        figures[model][key] = value
    common = sorted(figures[champion].keys() & figures[candidate].keys())
    if not common:
        problem = f"{champion} and {candidate} have no measured image in common"
        raise ConfigError("evaluation", None, problem, "measure both on the same content with the same seed")
    pairs = np.array([[figures[model][key] for model in (champion, candidate)] for key in common], dtype=np.float64)
    if not np.isfinite(pairs).all():
        first = common[int(np.flatnonzero(~np.isfinite(pairs).all(axis=1))[0])]
        raise ConfigError("evaluation", None, f"holds a {metric} that is not finite, for {first!r}", "measure again")
    return pairs
