"""Small changes of photographs, and the term that keeps paintings the same under them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.training.checkpoint import TrainState
from stylemill.training.schedule import Sampler
from stylemill.training.small_change import NOISE, SHIFT_PX, SmallChange
from stylemill.training.train_step import ReducedPrecisionNet, train_step
from tests.unit.training.test_train_step import batch, make_setup, one_thread  # noqa: F401 (a fixture)

CHANGE = SmallChange(down_px=3, across_px=1, seed=5)


def test_a_change_is_a_shift_and_noise_that_do_not_depend_on_the_split():
    images = batch(4)
    changed = CHANGE.applied(images)
    assert changed.shape == (4, 3, 28, 28)
    noise = changed - images[:, :, 3:31, 1:29]
    assert noise.std() == pytest.approx(NOISE, rel=0.05)
    torch.testing.assert_close(torch.cat([CHANGE.applied(part) for part in images.split(1)]), changed)


def test_only_what_a_change_changes_counts():
    images = batch(2)
    still = replace(CHANGE, noise=0.0)
    assert still.difference(images, still.applied(images)) == 0
    brighter = still.applied(images) + 0.5
    assert still.difference(images, brighter) == pytest.approx(0.25)


def test_steps_have_changes_of_their_own_that_depend_on_the_seed_alone():
    changes = [Sampler(10, seed=3).change(step) for step in range(40)]
    assert (
        changes
        == [Sampler(99, seed=3).change(step) for step in range(40)]
        != [Sampler(10, seed=4).change(step) for step in range(40)]
    )
    assert {change.down_px for change in changes} == set(range(SHIFT_PX + 1))
    assert len({change.seed for change in changes}) == 40


def unsteadiness(net: nn.Module) -> float:
    images = batch(4, seed=3)
    with torch.no_grad():
        return float(CHANGE.difference(net(images), net(CHANGE.applied(images))))


def test_training_with_the_term_gives_a_steadier_network():
    found = {}
    for weight in (0.0, 50.0):
        net = TransformerNet(Architecture(width=0.1))
        net.init_weights(0)
        state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
        state.set_rate(2e-3)
        setup = replace(make_setup(), steady_weight=weight)
        model = ReducedPrecisionNet(state.net, torch.float32)
        sampler = Sampler(4, seed=0)
        for step in range(12):
            result = train_step(model, state.optimizer, batch(), setup, change=sampler.change(step))
            assert (result.steady_loss > 0) == bool(weight)
        found[weight] = unsteadiness(state.net)
    assert found[50.0] < 0.7 * found[0.0]
