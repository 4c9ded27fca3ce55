"""Against examples that others have worked out and published."""

from __future__ import annotations

import numpy as np
import pytest

from stylemill.experiments.design import power_of, units_needed_live
from stylemill.experiments.live_split import ratio_p_value
from stylemill.experiments.ranking import bradley_terry, voter_agreement
from stylemill.experiments.statistics import assess_pairs, assess_rates, assess_wins

BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=float,
)
"""American League 1987, wins of the row over the column: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland,
Baltimore. Agresti, Categorical Data Analysis, 2nd ed., table 10.10."""


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


def test_power_of_a_paired_t_test():
    """Faul et al., manual of G*Power 3.1, dependent means: dz 0.421637, 50 pairs, level 0.05."""
    assert power_of(50, 1.0, 0.421637, alpha=0.05) == pytest.approx(0.832114, abs=1e-6)


def test_two_proportions_on_aspirin_and_heart_attacks():
    """Physicians' Health Study, Agresti, An Introduction to Categorical Data Analysis, 2.2: z 5.00, 0.005 to 0.011."""
    found = assess_rates((104, 189), (11037, 11034))
    assert found.z == pytest.approx(5.00, abs=0.005)
    assert found.effect == pytest.approx(0.0077, abs=5e-5)
    assert found.interval == pytest.approx((0.005, 0.011), abs=5e-4)


def test_units_of_a_live_split():
    """Cohen 1988, section 6.4: h = 0.30 needs about 174 units on each side at level 0.05 with power 0.80."""
    change = np.sin((2 * np.arcsin(np.sqrt(0.5)) + 0.30) / 2) ** 2 - 0.5
    assert units_needed_live(0.5, change, alpha=0.05, power=0.80) == pytest.approx(174, abs=1)


def test_laplaces_births():
    """Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.4: 241,945 girls, 251,527 boys; 1.15e-42."""
    assert assess_wins(241_945, 251_527).probability_better == pytest.approx(1.15e-42, rel=0.005)


def test_a_sample_ratio_mismatch():
    """Kohavi, Tang and Xu 2020, Trustworthy Online Controlled Experiments, chapter 21: p 1.8e-6."""
    assert ratio_p_value(821_588, 815_482) == pytest.approx(1.8e-6, rel=0.03)


def test_bradley_terry_on_baseball():
    """Agresti, table 10.11: log abilities against Baltimore 1.58, 1.44, 1.29, 1.25, 1.11, 0.68."""
    strengths, covariance, was_regularized = bradley_terry(BASEBALL)
    assert not was_regularized and strengths.mean() == pytest.approx(0)
    assert (strengths - strengths[-1])[:6] == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68], abs=0.006)
    assert np.allclose(covariance, covariance.T) and (np.linalg.eigvalsh(covariance) > -1e-12).all()


def test_cohens_kappa():
    """Fifty grant proposals read by two: 20 yes yes, 5 yes no, 10 no yes, 15 no no; kappa 0.40."""
    votes = []
    for number, (one, other) in enumerate([("m", "m")] * 20 + [("m", "n")] * 5 + [("n", "m")] * 10 + [("n", "n")] * 15):
        for voter, preferred in (("one", one), ("other", other)):
            votes.append({"voter": voter, "key": str(number), "model_a": "m", "model_b": "n", "preferred": preferred})
    assert voter_agreement(votes) == pytest.approx((0.7, 0.4))
