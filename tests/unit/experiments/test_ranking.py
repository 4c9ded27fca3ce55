"""Strengths of candidates and agreement of voters, against published examples."""

from __future__ import annotations

import numpy as np
import pytest

from stylemill.experiments.ranking import bradley_terry, voter_agreement

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


def test_bradley_terry_on_baseball():
    """Agresti, table 10.11: log abilities against Baltimore 1.58, 1.44, 1.29, 1.25, 1.11, 0.68."""
    strengths, covariance, was_regularized = bradley_terry(BASEBALL)
    assert not was_regularized and strengths.mean() == pytest.approx(0)
    assert (strengths - strengths[-1])[:6] == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68], abs=0.006)
    assert np.allclose(covariance, covariance.T) and (np.linalg.eigvalsh(covariance) > -1e-12).all()


def test_candidates_that_never_lose_still_get_finite_strengths():
    strengths, covariance, was_regularized = bradley_terry(np.array([[0, 5, 4], [0, 0, 3], [0, 2, 0]], dtype=float))
    assert was_regularized and strengths[0] > strengths[1] > strengths[2]
    assert np.isfinite(covariance).all()


def test_cohens_kappa():
    """Fifty grant proposals read by two: 20 yes yes, 5 yes no, 10 no yes, 15 no no; kappa 0.40."""
    votes = []
    for number, (one, other) in enumerate([("m", "m")] * 20 + [("m", "n")] * 5 + [("n", "m")] * 10 + [("n", "n")] * 15):
        for voter, preferred in (("one", one), ("other", other)):
            votes.append({"voter": voter, "key": str(number), "model_a": "m", "model_b": "n", "preferred": preferred})
    assert voter_agreement(votes) == pytest.approx((0.7, 0.4))
