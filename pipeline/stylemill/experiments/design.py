"""Design of experiments: which models are compared on which images, and how many images or votes a test needs.

The first part reads tables of measurements and pairs the figures of two models. The second part computes sample sizes
and powers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stylemill.errors import ConfigError, ObjectNotFound, PathConflict
from stylemill.evaluation.schema import model_label, read_measurements
from stylemill.registry import find_version, is_reference
from stylemill.storage import Storage, resolve


def read_evaluations(storage: Storage, locations: Sequence[str]) -> pa.Table:
    """Return the rows of one or more evaluations.

    Raises:
        ConfigError: a location has no table of measurements, or the tables were measured by different judges.
        StorageError: storage failed beyond its retries.
    """
    tables = []
    for location in locations:
        try:
            tables.append(read_measurements(storage, resolve(location)))
        except (ObjectNotFound, PathConflict):
            cure = "give the OUT of `stylemill evaluate`"
            raise ConfigError("evaluation", location, "has no evaluation.parquet", cure) from None
        except ValueError as error:
            cure = "run `stylemill evaluate` again"
            raise ConfigError("evaluation", location, f"has no table of measurements ({error})", cure) from None
    table = pa.concat_tables(tables)
    if len(set(table["judge"].to_pylist())) > 1:
        problem = "were measured under different losses, style images or sizes"
        raise ConfigError("evaluation", list(locations), problem, "measure both models with the same settings")
    return table


def resolve_model_label(storage: Storage, name: str, registry: str | None) -> str:
    """Return the label of a model in the tables; a reference into a registry is resolved to its version.

    Raises:
        ConfigError: no registry is given, the location is not a registry, or it has no such style or version.
    """
    if not is_reference(name):
        return name
    version = find_version(storage, name, registry)
    return model_label(version.style, version.version)


def choose_models(table: pa.Table, champion: str | None, candidate: str | None) -> tuple[str, str]:
    """Return the labels of champion and candidate; without names, the two models of the table in their order.

    Raises:
        ConfigError: a model is unknown, or one is not named and the table does not have exactly two.
    """
    models = list(dict.fromkeys(table["model"].to_pylist()))
    for field, name in (("champion", champion), ("candidate", candidate)):
        if name is not None and name not in models:
            raise ConfigError(field, name, "was not measured", "use one of " + ", ".join(models))
    if champion is None or candidate is None:
        if len(models) != 2:
            problem = f"is ambiguous among {len(models)} models"
            raise ConfigError("candidate", candidate, problem, f"give --champion and --candidate: {', '.join(models)}")
        champion = champion or next(model for model in models if model != candidate)
        candidate = next(model for model in models if model != champion)
    return champion, candidate


def pair_up(table: pa.Table, metric: str, champion: str, candidate: str) -> NDArray[np.float64]:
    """Return the (n, 2) values of a metric for champion and candidate on their common images, in order of key.

    Raises:
        ConfigError: they have no image in common, an image was measured twice, or a value is not finite.
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
        raise ConfigError("evaluation", None, f"has a {metric} that is not finite, for {first!r}", "measure again")
    return pairs


# Sample sizes and powers.

MIN_PAIRS = 8
"""With fewer pairs neither the t test nor the bootstrap is reliable, whatever their computed power."""


def pairs_needed(sd_difference: float, minimal_difference: float, *, alpha: float, power: float) -> int:
    """Return the number of pairs that a two-sided paired t test needs.

    Args:
        sd_difference: standard deviation of the differences within pairs.
        minimal_difference: smallest mean difference worth detecting, above 0.
        alpha: level of the test.
        power: probability of detecting that difference.

    Source: noncentral t distribution, as in statsmodels' TTestPower.
    """
    from scipy.optimize import brentq

    if sd_difference <= 0:
        return MIN_PAIRS
    effect_size = minimal_difference / sd_difference

    def lacking(num: float) -> float:
        return _power(effect_size, num, alpha) - power

    if lacking(MIN_PAIRS) >= 0:
        return MIN_PAIRS
    enough = float(MIN_PAIRS)
    while lacking(enough) < 0:
        enough *= 2
    return math.ceil(brentq(lacking, enough / 2, enough))


def power_of(num_pairs: int, sd_difference: float, difference: float, *, alpha: float) -> float:
    """Return the probability that a two-sided paired t test detects a mean difference; see ``pairs_needed``."""
    return 1.0 if sd_difference <= 0 else _power(abs(difference) / sd_difference, num_pairs, alpha)


def _power(effect_size: float, num_pairs: float, alpha: float) -> float:
    from scipy import stats
    from statsmodels.stats.power import TTestPower

    found = float(TTestPower().power(effect_size, num_pairs, alpha))
    if math.isnan(found):  # the noncentral t distribution overflows in the tails, where the power is nearly 0 or 1
        return float(effect_size * math.sqrt(num_pairs) > stats.t.isf(alpha / 2, num_pairs - 1))
    return found


def units_needed(minimal_win_rate: float, *, alpha: float, power: float) -> int:
    """Return the smallest number of images for which the exact two-sided test of a win rate against 0.5 has the power.

    The normal approximation gives too few: at level 0.05 and a rate of 0.6 its number has a power of 0.76, not 0.8.

    Args:
        minimal_win_rate: smallest rate worth detecting, above 0.5.
        alpha: level of the test.
        power: probability of detecting that rate.
    """
    from scipy import stats

    start, width = 1, 4096
    while True:
        num = np.arange(start, start + width)
        # The largest number of wins (or, by symmetry, losses) at which the test rejects.
        edge = stats.binom.ppf(alpha / 2, num, 0.5)
        edge = np.where(stats.binom.cdf(edge, num, 0.5) <= alpha / 2, edge, edge - 1)
        reached = stats.binom.cdf(edge, num, minimal_win_rate) + stats.binom.sf(num - edge - 1, num, minimal_win_rate)
        enough = np.flatnonzero(reached >= power)
        if len(enough):
            return int(num[enough[0]])
        start += width


def units_needed_live(rate: float, minimal_change: float, *, alpha: float, power: float, ratio: float = 1.0) -> int:
    """Return the number of units that the champion's side of a live split needs.

    Args:
        rate: the champion's rate of success.
        minimal_change: smallest absolute change of the rate worth detecting.
        alpha: level of the test.
        power: probability of detecting that change.
        ratio: number of the candidate's units divided by the number of the champion's.
    """
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    changed = min(max(rate + minimal_change, 1e-9), 1 - 1e-9)
    effect_size = abs(proportion_effectsize(changed, min(max(rate, 1e-9), 1 - 1e-9)))
    return math.ceil(NormalIndPower().solve_power(effect_size, alpha=alpha, power=power, ratio=ratio))
