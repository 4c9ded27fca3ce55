from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylemill.nn.losses import FULL_VIEW
from stylemill.training.schedule import Plateau, Sampler, one_cycle

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31)


@given(num_images=sizes, seed=seeds, epoch=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_image_once_per_epoch(num_images, seed, epoch):
    sampler = Sampler(num_images, seed)
    start = epoch * num_images
    images = [sampler.sample(index).image for index in range(start, start + num_images)]
    assert sorted(images) == list(range(num_images))


@given(
    num_images=sizes,
    seed=seeds,
    batch_size=st.integers(1, 9),
    num_workers=st.integers(1, 9),
    workers_after=st.integers(1, 9),
    resumed_at=st.integers(0, 12),
)
@settings(max_examples=80, deadline=None)
def test_workers_together_draw_the_same_samples_whatever_their_number_and_wherever_a_run_resumes(
    num_images, seed, batch_size, num_workers, workers_after, resumed_at
):
    def draws(first_step, last_step, count):
        # Each worker has a sampler of its own, as in a new process.
        found = []
        for rank in range(count):
            sampler = Sampler(num_images, seed)
            for step in range(first_step, last_step):
                indices = sampler.share(step, batch_size, rank, count)
                found += [(index, sampler.sample(index)) for index in indices]
        return found

    resumed = draws(0, resumed_at, num_workers) + draws(resumed_at, 12, workers_after)
    assert sorted(resumed, key=lambda pair: pair[0]) == draws(0, 12, 1)
    whole_epochs = 12 * batch_size // num_images
    counts = Counter(sample.image for index, sample in resumed if index < whole_epochs * num_images)
    assert all(counts[image] == whole_epochs for image in range(num_images))


@given(seed=seeds, index=st.integers(0, 10**9))
@settings(max_examples=50, deadline=None)
def test_crops_lie_inside_and_depend_on_seed_and_number_alone(seed, index):
    sampler = Sampler(7, seed)
    sampler.sample(3)
    sample = sampler.sample(index)
    assert sample == Sampler(7, seed).sample(index)
    assert all(0 <= place < 1 for place in sample.position)


def test_epochs_and_seeds_have_different_orders():
    def order(seed, epoch):
        sampler = Sampler(50, seed)
        return tuple(sampler.sample(epoch * 50 + place).image for place in range(50))

    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_shares_differ_by_one_sample_at_most():
    sampler = Sampler(5, 0)
    lengths = [len(sampler.share(3, 10, rank, 4)) for rank in range(4)]
    assert sorted(lengths) == [2, 2, 3, 3]


@given(seed=seeds, step=st.integers(0, 10**6), crop_px=st.integers(8, 2048), least=st.floats(0.25, 0.999))
@settings(max_examples=80, deadline=None)
def test_views_depend_on_seed_and_step_alone_and_stay_inside(seed, step, crop_px, least):
    view = Sampler(3, seed).view(step, crop_px, least)
    other = Sampler(5, seed)
    other.view(step + 1, crop_px, least)
    assert other.view(step, crop_px, least) == view
    assert least <= view.scale <= 1
    assert 0 <= view.top_px <= view.margin_px and 0 <= view.left_px <= view.margin_px < crop_px


def test_views_change_from_step_to_step_unless_they_are_whole():
    sampler = Sampler(3, seed=0)
    views = [sampler.view(step, 256, 0.6) for step in range(200)]
    assert min(view.scale for view in views) < 0.62 and max(view.scale for view in views) > 0.98
    assert {view.top_px for view in views} == {view.left_px for view in views} == set(range(17))
    assert {sampler.view(step, 256, 1.0) for step in range(5)} == {FULL_VIEW}


@pytest.mark.parametrize("steps", [1, 2, 5, 250, 2000])
def test_the_rate_rises_to_its_peak_once_and_falls_almost_to_zero(steps):
    rates = [one_cycle(step, steps, 4e-3) for step in range(steps)]
    assert all(0 < rate <= 4e-3 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 250:
        assert max(rates) == pytest.approx(4e-3, rel=1e-3)
        assert rates[0] == pytest.approx(4e-3 / 25, rel=0.05)
        assert rates[-1] < 4e-3 / 1000


def develop(*means):
    plateau = Plateau()
    for mean in means:
        plateau = plateau.after([mean - 1, mean + 1])
    return plateau


def test_plateau_counts_checkpoints_since_the_lowest_loss():
    assert develop(5, 4, 3) == Plateau(best_loss=3, num_without_gain=0)
    assert develop(5, 4, 4, 6) == Plateau(best_loss=4, num_without_gain=2)
    assert develop(5, 4, 6, 3) == Plateau(best_loss=3, num_without_gain=0)


def test_plateau_is_reached_after_patience_checkpoints():
    assert not develop(5, 6, 7).is_reached(3)
    assert develop(5, 6, 7).is_reached(2)
    assert not develop(5, 6, 7, 8, 9).is_reached(0)


def test_a_checkpoint_without_a_finite_step_is_not_a_gain():
    assert Plateau(best_loss=2.0).after([]) == Plateau(best_loss=2.0, num_without_gain=1)
