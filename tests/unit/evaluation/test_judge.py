"""The losses of a judge."""

from __future__ import annotations

import pytest

from stylemill.evaluation.judge import Judge, to_batch
from stylemill.nn.losses import perceptual_loss
from tests.drawn import drawn_image


def test_the_losses_are_those_of_training_without_its_lattice_term(judge: Judge):
    result_HWC, source_HWC = drawn_image(80, 96, 1), drawn_image(80, 96, 2)
    found = judge.losses(result_HWC, source_HWC)
    wanted = perceptual_loss(judge.network, to_batch(result_HWC), to_batch(source_HWC), judge.target, judge.weights)
    total = float(wanted.total) - judge.weights.lattice * float(wanted.lattice)
    assert found.total == pytest.approx(total, rel=1e-5)
    assert found.style == pytest.approx(float(wanted.style), rel=1e-5)
    assert judge.losses(judge.style_HWC, judge.style_HWC).style == pytest.approx(
        0, abs=1e-3
    )  # the palette takes 4,096 pixels
    assert judge.losses(source_HWC, source_HWC).content == 0
