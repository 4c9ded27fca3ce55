"""By simulation: what is promised about error rates holds over many experiments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stylemill.experiments.design import pairs_needed, units_needed
from stylemill.experiments.live_split import assign, ratio_p_value
from stylemill.experiments.statistics import anytime_half_width, anytime_p_values, assess_pairs, mixture_scale

RUNS = 1000
TOLERANCE = 0.02
"""Three standard errors of a share of 0.05 over 1,000 runs."""


def _losses(rng: np.random.Generator, num: int, change: float = 0.0) -> tuple[np.ndarray, float]:
    """Return (RUNS, num) differences of skewed, correlated losses, and their standard deviation."""
    image = rng.lognormal(0.0, 0.4, (RUNS, num))
    noise = rng.gamma(4.0, 0.05, (RUNS, num)) - rng.gamma(4.0, 0.05, (RUNS, num))
    return noise * image + change, float(np.std(noise * image))


def test_an_a_a_test_is_significant_as_often_as_the_level_says():
    differences, _ = _losses(np.random.default_rng(1), 60)
    p_values = stats.ttest_1samp(differences, 0.0, axis=1).pvalue
    # The function under test, on as many runs as its bootstrap allows in a second; the rest shows that it is this test.
    assert [assess_pairs(row, resamples=999).p_value for row in differences[:40]] == pytest.approx(p_values[:40])
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=TOLERANCE)


def test_the_computed_number_of_images_gives_the_power_asked_for():
    rng = np.random.default_rng(2)
    _, sd = _losses(rng, 2000)
    needed = pairs_needed(sd, 0.1, alpha=0.05, power=0.8)
    differences, _ = _losses(rng, needed, change=0.1)
    found = np.mean(stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.04)
    fewer, _ = _losses(rng, needed // 2, change=0.1)
    assert np.mean(stats.ttest_1samp(fewer, 0.0, axis=1).pvalue < 0.05) < 0.65


def _looks(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers seen, means and standard deviations after every image, each (RUNS, n)."""
    num = np.arange(1, differences.shape[1] + 1) * np.ones((len(differences), 1))
    mean = np.cumsum(differences, axis=1) / num
    variance = (np.cumsum(differences**2, axis=1) - num * mean**2) / np.maximum(num - 1, 1)
    return num, mean, np.sqrt(np.maximum(variance, 0))


def test_peeking_after_every_image_costs_nothing_with_the_sequential_rule_alone():
    differences, _ = _losses(np.random.default_rng(3), 300)
    num, mean, sd = _looks(differences)
    p_values = anytime_p_values(num, mean, sd, scale=mixture_scale(100, alpha=0.05))
    assert np.mean(p_values.min(axis=1) < 0.05) <= 0.05 + TOLERANCE
    with np.errstate(divide="ignore", invalid="ignore"):
        naive = 2 * stats.t.sf(np.abs(mean / sd * np.sqrt(num)), num - 1)
    assert np.mean(naive[:, 20:].min(axis=1) < 0.05) > 0.15  # what peeking does to the plain test


def test_the_sequence_of_intervals_is_the_p_value_turned_round():
    scale = mixture_scale(100, alpha=0.05)
    for num in (20, 50, 400):
        edge = anytime_half_width(num, 2.0, alpha=0.05, scale=scale)
        assert anytime_p_values(num, edge, 2.0, scale=scale) == pytest.approx(0.05)
    assert anytime_half_width(5, 2.0, alpha=0.05, scale=scale) == np.inf


def test_the_computed_number_of_votes_gives_the_power_asked_for():
    needed = units_needed(0.6, alpha=0.05, power=0.8)
    wins = np.random.default_rng(4).binomial(needed, 0.6, 20_000)
    table = np.array([stats.binomtest(k, needed).pvalue for k in range(needed + 1)])
    assert np.mean(table[wins] < 0.05) == pytest.approx(0.8, abs=0.015)


def test_assignment_is_steady_balanced_and_new_for_each_experiment():
    units = [f"asset-{number}" for number in range(20_000)]
    first = [assign(unit, experiment="one") for unit in units]
    assert first == [assign(unit, experiment="one") for unit in units]
    assert ratio_p_value(first.count("champion"), first.count("candidate")) > 0.001
    same = np.mean([one == assign(unit, experiment="two") for unit, one in zip(units, first, strict=True)])
    assert same == pytest.approx(0.5, abs=0.015)
    tenth = [assign(unit, experiment="one", candidate_share=0.1) for unit in units]
    assert ratio_p_value(tenth.count("champion"), tenth.count("candidate"), candidate_share=0.1) > 0.001
    # Whoever sees the candidate at a small share keeps it when the share grows.
    assert all(one == "candidate" for one, at_tenth in zip(first, tenth, strict=True) if at_tenth == "candidate")
