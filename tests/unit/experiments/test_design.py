"""Computed sample sizes and powers, against published examples and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stylemill.experiments.design import pairs_needed, power_of, units_needed, units_needed_live
from tests.unit.experiments.tables import simulated_losses


def test_power_of_a_paired_t_test():
    """Faul et al., manual of G*Power 3.1, dependent means: dz 0.421637, 50 pairs, level 0.05."""
    assert power_of(50, 1.0, 0.421637, alpha=0.05) == pytest.approx(0.832114, abs=1e-6)


def test_units_of_a_live_split():
    """Cohen 1988, section 6.4: h = 0.30 needs about 174 units on each side at level 0.05 with power 0.80."""
    change = np.sin((2 * np.arcsin(np.sqrt(0.5)) + 0.30) / 2) ** 2 - 0.5
    assert units_needed_live(0.5, change, alpha=0.05, power=0.80) == pytest.approx(174, abs=1)


def test_the_computed_number_of_images_gives_the_power_asked_for():
    rng = np.random.default_rng(2)
    _, sd = simulated_losses(rng, 2000)
    needed = pairs_needed(sd, 0.1, alpha=0.05, power=0.8)
    differences, _ = simulated_losses(rng, needed, change=0.1)
    found = np.mean(stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.04)
    fewer, _ = simulated_losses(rng, needed // 2, change=0.1)
    assert np.mean(stats.ttest_1samp(fewer, 0.0, axis=1).pvalue < 0.05) < 0.65


def test_the_computed_number_of_votes_gives_the_power_asked_for():
    needed = units_needed(0.6, alpha=0.05, power=0.8)
    wins = np.random.default_rng(4).binomial(needed, 0.6, 20_000)
    table = np.array([stats.binomtest(k, needed).pvalue for k in range(needed + 1)])
    assert np.mean(table[wins] < 0.05) == pytest.approx(0.8, abs=0.015)
