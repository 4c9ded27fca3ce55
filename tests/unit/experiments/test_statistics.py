"""Statistical tests, against published examples and by simulation of their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stylemill.experiments.statistics import (
    anytime_half_width,
    anytime_p_values,
    assess_pairs,
    assess_rates,
    assess_wins,
    mixture_scale,
)
from tests.unit.experiments.tables import TOLERANCE, simulated_losses


def test_the_paired_t_test_on_students_sleep_data():
    """Student 1908; as R's t.test(extra ~ group, data = sleep, paired = TRUE) prints it."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = assess_pairs(first - second)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert found.effect == pytest.approx(-1.58)
    assert found.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.credible_interval == pytest.approx(found.interval)  # what Jeffreys' prior gives
    assert found.probability_better == pytest.approx(1 - 0.002833 / 2, abs=5e-7)


def test_wilcoxons_signed_ranks_on_the_depression_scale():
    """Hollander and Wolfe 1973, p. 29; one-sided 0.01953 in R's help page of wilcox.test."""
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert assess_pairs(after - before).p_value_wilcoxon == pytest.approx(2 * 0.01953, abs=1e-5)


def test_two_proportions_on_aspirin_and_heart_attacks():
    """Physicians' Health Study, Agresti, An Introduction to Categorical Data Analysis, 2.2: z 5.00, 0.005 to 0.011."""
    found = assess_rates((104, 189), (11037, 11034))
    assert found.z == pytest.approx(5.00, abs=0.005)
    assert found.effect == pytest.approx(0.0077, abs=5e-5)
    assert found.interval == pytest.approx((0.005, 0.011), abs=5e-4)


def test_laplaces_births():
    """Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.4: 241,945 girls, 251,527 boys; 1.15e-42."""
    assert assess_wins(241_945, 251_527).probability_better == pytest.approx(1.15e-42, rel=0.005)


def test_an_a_a_test_is_significant_as_often_as_the_level_says():
    differences, _ = simulated_losses(np.random.default_rng(1), 60)
    p_values = stats.ttest_1samp(differences, 0.0, axis=1).pvalue
    # The function under test, on as many runs as its bootstrap allows in a second; the rest shows that it is this test.
    assert [assess_pairs(row, resamples=999).p_value for row in differences[:40]] == pytest.approx(p_values[:40])
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=TOLERANCE)


def _looks(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers seen, means and standard deviations after every image, each (RUNS, n)."""
    num = np.arange(1, differences.shape[1] + 1) * np.ones((len(differences), 1))
    mean = np.cumsum(differences, axis=1) / num
    variance = (np.cumsum(differences**2, axis=1) - num * mean**2) / np.maximum(num - 1, 1)
    return num, mean, np.sqrt(np.maximum(variance, 0))


def test_peeking_after_every_image_costs_nothing_with_the_sequential_rule_alone():
    differences, _ = simulated_losses(np.random.default_rng(3), 300)
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
