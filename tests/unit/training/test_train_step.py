"""``train_step`` on random crops: single steps, all variants of the network, teachers, flat colours, two processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F

from stylemill.nn.colors import with_colors_of
from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import FULL_VIEW, LossView, StyleTarget, style_target
from stylemill.nn.pixels import deprocess, normalize
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_model import from_bytes, to_bytes
from stylemill.training.checkpoint import TrainState
from stylemill.training.schedule import one_cycle
from stylemill.training.train_step import ReducedPrecisionNet, Request, StepSetup, frozen_teacher, train_step
from tests.drawn import drawn_image, style_model

SIDE_PX = 32


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def pyramid(dtype: torch.dtype = torch.float32) -> tuple[PyramidLossNetwork, StyleTarget]:
    """Return the loss network in a dtype, and the target of a random style, computed in float32."""
    network = PyramidLossNetwork()
    target = style_target(network, batch(1, seed=9))
    return network.to(dtype), target


def batch(num: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(seed))


def fresh_state() -> TrainState:
    net = TransformerNet(Architecture(width=0.1))
    net.init_weights(0)
    state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
    state.set_rate(1e-3)
    return state


def make_setup(dtype: torch.dtype = torch.float32, micro_batch_size: int = 4, clip: float = 10.0) -> StepSetup:
    network, target = pyramid(dtype)
    return StepSetup(
        loss_network=network, targets=[target], weights=LossWeights(), dtype=dtype, max_gradient_norm=clip,
        batch_size=4, num_workers=1, micro_batch_size=micro_batch_size,
    )  # fmt: skip


def run(state: TrainState, setup: StepSetup, batch_NCHW: torch.Tensor):
    return train_step(ReducedPrecisionNet(state.net, setup.dtype), state.optimizer, batch_NCHW, setup)


def parameters_of(state: TrainState) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in state.net.parameters()])


def test_a_style_with_the_colours_of_the_content_has_a_target_for_each_image():
    style_NCHW, content_NCHW = batch(1, seed=9), batch(4) * 0.2 + 0.5
    setup = replace(make_setup(), recoloured=[style_NCHW])
    target = setup.target_for(content_NCHW, None)
    assert {len(gram) for gram in target.grams.values()} == {4}
    for number in range(4):
        alone = style_target(setup.loss_network, with_colors_of(style_NCHW, content_NCHW[number : number + 1]))
        for name, gram in alone.grams.items():
            torch.testing.assert_close(target.grams[name][number : number + 1], gram, rtol=1e-4, atol=1e-6)
    assert make_setup().target_for(content_NCHW, None) is make_setup().targets[0]
    # Micro-batches give the same loss and gradient as the whole batch.
    whole = run(fresh_state(), setup, content_NCHW)
    parts = run(fresh_state(), replace(setup, micro_batch_size=2), content_NCHW)
    assert parts.style_loss == pytest.approx(whole.style_loss, rel=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-3)


def several_state(num_styles: int = 3) -> TrainState:
    net = TransformerNet(Architecture(width=0.1), num_styles=num_styles)
    net.init_weights(0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
    state.set_rate(1e-3)
    return state


def alone(state: TrainState, style: int) -> TrainState:
    """Return the state of a network of one of the styles."""
    net = TransformerNet(state.net.architecture)
    weights = state.net.state_dict()
    net.load_state_dict({key: tensor[style] if "norm" in key else tensor for key, tensor in weights.items()})
    return TrainState.fresh(net.train().to(memory_format=torch.channels_last))


@pytest.mark.parametrize("colours", ["own", "content"])
def test_a_step_over_several_styles_is_the_mean_of_steps_of_each(colours: str):
    images = [batch(1, seed=9), batch(1, seed=8) * 0.5, batch(1, seed=7) + 0.3]
    network, _ = pyramid()
    targets = [style_target(network, image_NCHW) for image_NCHW in images]
    recoloured = images if colours == "content" else ()
    setup = replace(make_setup(), targets=targets, recoloured=recoloured)
    state, styles = several_state(), [2, 0, 1, 2]
    terms = []
    for index, style in enumerate(styles):
        own = replace(setup, targets=[targets[style]], recoloured=[images[style]] if recoloured else (), batch_size=1)
        terms.append(run(alone(state, style), own, batch()[index : index + 1]))
    for micro_batch_size in (4, 1):
        together = several_state()
        model = ReducedPrecisionNet(together.net, torch.float32)
        found = train_step(
            model, together.optimizer, batch(), replace(setup, micro_batch_size=micro_batch_size),
            styles_N=torch.tensor(styles),
        )  # fmt: skip
        for term in ("loss", "content_loss", "style_loss", "lattice_loss"):
            assert getattr(found, term) == pytest.approx(np.mean([getattr(one, term) for one in terms]), rel=1e-4)


def test_the_style_photo_learns_photographs_as_they_are_and_the_others_do_not():
    setup = replace(make_setup(), photo_style=1, photo_weight=2.0)
    photos = F.interpolate(batch()[:, :, :6, :6], size=SIDE_PX, mode="bicubic")
    state, styles = several_state(2), torch.tensor([1, 0, 1, 1])
    state.set_rate(3e-3)
    model = ReducedPrecisionNet(state.net, torch.float32)
    losses = []
    for _ in range(25):
        result = train_step(model, state.optimizer, photos, setup, styles_N=styles)
        losses.append(result.photo_loss)
    assert losses[-1] < 0.85 * losses[0]
    with torch.no_grad():
        distances = [float((model(photos, torch.full((4,), style)) - photos).square().mean()) for style in (0, 1)]
    assert distances[1] < 0.9 * distances[0]
    state = several_state(2)
    none = train_step(
        ReducedPrecisionNet(state.net, torch.float32), state.optimizer, photos, setup, styles_N=torch.zeros(4).long()
    )
    assert none.photo_loss == 0


@pytest.mark.parametrize("view", [FULL_VIEW, LossView(scale=0.75, margin_px=8, left_px=4)])
def test_the_style_of_a_photograph_is_its_own_in_the_view_of_the_step(view: LossView):
    setup = replace(make_setup(), photo_style=1, photo_weight=2.0)
    own = setup.target_for(batch(2), torch.tensor([1, 0]), view)
    for name, gram in style_target(setup.loss_network, view.apply(batch(2))).grams.items():
        torch.testing.assert_close(own.grams[name][0], gram[0])
        torch.testing.assert_close(own.grams[name][1], setup.targets[0].grams[name][0])


def test_a_teacher_does_not_teach_the_style_photo():
    setup = replace(make_setup(), photo_style=1, teacher=torch.nn.Tanh(), teacher_weight=1.0)
    found = []
    for styles in ([1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]):
        state = several_state(2)
        model = ReducedPrecisionNet(state.net, torch.float32)
        found.append(train_step(model, state.optimizer, batch(), setup, styles_N=torch.tensor(styles)).teacher_loss)
    assert found[0] == 0 < found[1] < found[2]


def test_a_step_changes_only_the_norms_of_the_styles_in_its_batch():
    state, (_, target) = several_state(), pyramid()
    before = {name: parameter.detach().clone() for name, parameter in state.net.named_parameters()}
    setup = replace(make_setup(), targets=[target] * 3)
    model = ReducedPrecisionNet(state.net, torch.float32)
    setup = replace(setup, batch_size=2)
    assert train_step(model, state.optimizer, batch(2), setup, styles_N=torch.tensor([0, 2])).is_finite
    after = dict(state.net.named_parameters())
    assert torch.equal(after["stem.norm.weight"][1], before["stem.norm.weight"][1])
    for style in (0, 2):
        assert not torch.equal(after["stem.norm.weight"][style], before["stem.norm.weight"][style])


def test_repeated_steps_lower_the_loss():
    state, setup = fresh_state(), make_setup()
    losses = [run(state, setup, batch()).loss for _ in range(6)]
    assert losses[-1] < losses[0]


def test_the_same_step_gives_the_same_bits():
    one, two = fresh_state(), fresh_state()
    setup = make_setup(torch.bfloat16)
    assert run(one, setup, batch()) == run(two, setup, batch())
    assert parameters_of(one).equal(parameters_of(two))


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_accumulated_portions_give_the_gradient_of_the_whole_batch(micro_batch_size):
    whole, cut = fresh_state(), fresh_state()
    expected = run(whole, make_setup(), batch())
    found = run(cut, make_setup(micro_batch_size=micro_batch_size), batch())
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)


def test_reduced_precision_stays_close_and_parameters_float32():
    exact, reduced = fresh_state(), fresh_state()
    expected, found = run(exact, make_setup(), batch()), run(reduced, make_setup(torch.bfloat16), batch())
    assert found.loss == pytest.approx(expected.loss, rel=0.02)
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=0.1)
    assert all(parameter.dtype == torch.float32 for parameter in reduced.net.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_changes_nothing_and_the_next_one_updates(value):
    state, setup = fresh_state(), make_setup()
    run(state, setup, batch())
    before, slots = parameters_of(state), state.to_tensors()
    poisoned = batch(seed=1)
    poisoned[2, 1, 5, 5] = value
    result = run(state, setup, poisoned)
    assert not result.is_finite
    assert parameters_of(state).equal(before)
    after = state.to_tensors()
    assert all(after[name].equal(slots[name]) for name in slots)
    assert run(state, setup, batch(seed=2)).is_finite
    assert not parameters_of(state).equal(before)


def test_large_gradients_are_clipped_but_reported_as_they_were():
    state = fresh_state()
    result = run(state, make_setup(clip=1e-3), batch())
    applied = torch.cat([parameter.grad.flatten() for parameter in state.net.parameters()])
    assert result.gradient_norm > 1e-2
    assert float(applied.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_requests_are_returned_even_by_a_skipped_step():
    state, setup = fresh_state(), make_setup()
    model = ReducedPrecisionNet(state.net, setup.dtype)
    both = Request.STOP | Request.CHECK_PREEMPTION
    assert train_step(model, state.optimizer, batch(), setup, request=both).request == both
    skipped = train_step(model, state.optimizer, batch() * float("nan"), setup, request=Request.STOP)
    assert (skipped.is_finite, skipped.request) == (False, Request.STOP)
    assert train_step(model, state.optimizer, batch(), setup).request == Request.NOTHING


def test_a_restored_state_continues_to_the_bit():
    state, setup = fresh_state(), make_setup()
    for seed in range(2):
        state.count_step(run(state, setup, batch(seed=seed)).is_finite, 0.9)
    other = fresh_state()
    other.load(state.step, state.to_tensors(), state.to_numbers())
    assert (other.step, other.num_skipped) == (2, 0)
    for each in (state, other):
        each.set_rate(5e-4)
        each.count_step(run(each, setup, batch(seed=5)).is_finite, 0.9)
    left, right = state.to_tensors(), other.to_tensors()
    assert left.keys() == right.keys()
    assert [name for name in left if not left[name].equal(right[name])] == []


def test_tensors_are_copies():
    state = fresh_state()
    tensors = state.to_tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    run(state, make_setup(), batch())
    assert all(tensors[name].equal(before[name]) for name in before)


def test_skipped_steps_are_counted_in_a_row():
    state = fresh_state()
    for was_updated in (True, False, False):
        state.count_step(was_updated, 0.9)
    assert (state.step, state.num_skipped, state.num_skipped_in_a_row) == (3, 2, 2)
    state.count_step(True, 0.9)
    assert (state.num_skipped, state.num_skipped_in_a_row) == (2, 0)


VARIANTS = {
    "transposed batch": {"upsampling": "transposed", "norm": "batch"},
    "shuffle group separable": {"upsampling": "shuffle", "norm": "group", "residual": "separable"},
    "layer": {"norm": "layer"},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns_and_its_state_can_be_restored(name, dtype):
    def fresh() -> TrainState:
        net = TransformerNet(Architecture(width=0.1, **VARIANTS[name]))
        net.init_weights(0)
        state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
        state.set_rate(5e-4)
        return state

    state, setup, losses = fresh(), make_setup(dtype), []
    for _ in range(6):
        result = run(state, setup, batch())
        state.count_step(result.is_finite, 0.9)
        losses.append(result.loss)
    assert losses[-1] < losses[0]
    other = fresh()
    other.load(state.step, state.to_tensors(), state.to_numbers())
    for each in (state, other):
        each.count_step(run(each, setup, batch(seed=5)).is_finite, 0.9)
    left, right = state.to_tensors(), other.to_tensors()
    assert all(left[key].equal(right[key]) for key in left | right)
    assert state.average.keys() == state.net.state_dict().keys()


def test_the_statistics_of_a_batch_norm_are_averaged_and_survive_what_is_not_finite():
    net = TransformerNet(Architecture(width=0.1, norm="batch"))
    net.init_weights(0)
    state, setup = TrainState.fresh(net.train().to(memory_format=torch.channels_last)), make_setup()
    state.set_rate(1e-3)
    state.count_step(run(state, setup, batch()).is_finite, 0.9)
    mean = state.net.stem.norm.running_mean.clone()
    assert mean.abs().max() > 0 and state.average["stem.norm.running_mean"].abs().max() > 0
    assert not run(state, setup, batch() * float("nan")).is_finite
    assert state.net.stem.norm.running_mean.equal(mean)


def teacher_bytes(seed: int) -> bytes:
    return to_bytes(style_model(seed=seed, width=0.2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_comes_closer_to_its_teacher_which_stays_as_it_is(dtype):
    teacher = frozen_teacher(teacher_bytes(3), "test", dtype)
    before = [parameter.clone() for parameter in teacher.parameters()]
    setup = replace(make_setup(dtype), teacher=teacher, teacher_weight=100.0)
    state = fresh_state()
    state.set_rate(1e-2)
    results = [run(state, setup, batch()) for _ in range(8)]
    assert results[-1].teacher_loss < 0.8 * results[0].teacher_loss
    alone = run(fresh_state(), make_setup(dtype), batch())
    assert alone.teacher_loss == 0
    assert results[0].loss == pytest.approx(alone.loss + 100 * results[0].teacher_loss, rel=1e-3)
    for parameter, was in zip(teacher.parameters(), before, strict=True):
        assert parameter.equal(was) and not parameter.requires_grad and parameter.grad is None


def test_the_teacher_loss_of_an_equal_network_is_zero():
    model = from_bytes(teacher_bytes(0), source="test")
    state = TrainState.fresh(model.build_network().train().to(memory_format=torch.channels_last))
    setup = replace(make_setup(), teacher=frozen_teacher(teacher_bytes(0), "test", torch.float32), teacher_weight=9.0)
    assert run(state, setup, batch()).teacher_loss == pytest.approx(0, abs=1e-9)


NUM_STEPS, CROP_PX = 10, 64


@pytest.fixture(scope="module")
def trained() -> ReducedPrecisionNet:
    """A network that was trained for a few steps on drawn pictures without flat colours."""
    network = PyramidLossNetwork()
    target = style_target(network, normalize(torch.from_numpy(drawn_image(96, 96, seed=77))[None]))
    setup = StepSetup(
        loss_network=network, targets=[target], weights=LossWeights(), dtype=torch.float32,
        max_gradient_norm=5.0, batch_size=2, num_workers=1, micro_batch_size=2,
    )  # fmt: skip
    net = TransformerNet(Architecture(width=0.25))
    net.init_weights(0)
    state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
    model = ReducedPrecisionNet(state.net, setup.dtype)
    for step in range(NUM_STEPS):
        crops_NHWC = np.stack([drawn_image(CROP_PX, CROP_PX, seed=2 * step + number) for number in range(2)])
        state.set_rate(one_cycle(step, NUM_STEPS, 4e-3))
        batch_NCHW = normalize(torch.from_numpy(crops_NHWC)).contiguous(memory_format=torch.channels_last)
        assert train_step(model, state.optimizer, batch_NCHW, setup).is_finite
    return model


@torch.no_grad()
def paint(model: ReducedPrecisionNet, image_HWC: np.ndarray) -> np.ndarray:
    batch_NCHW = normalize(torch.from_numpy(image_HWC)[None]).contiguous(memory_format=torch.channels_last)
    return deprocess(model(batch_NCHW))[0].numpy()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_input_stays_flat_and_within_the_range(trained: ReducedPrecisionNet, level: int):
    painted = paint(trained, np.full((96, 96, 3), level, np.uint8)).astype(float)
    assert painted.std(axis=(0, 1)).max() < 1
    assert painted.min() > 20 and painted.max() < 235


def batches_of_ranks() -> list[torch.Tensor]:
    """Return three batches; in the second one a single value of the last sample, the second rank's, is not finite."""
    drawn = [batch(seed=seed) for seed in range(3)]
    drawn[1][-1, 0, 3, 3] = float("nan")
    return drawn


def learn(rank: int, num_workers: int, folder: Path) -> None:
    """Take the steps of one rank and leave results and weights behind."""
    torch.set_num_threads(1)
    if num_workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_workers)
    net = TransformerNet(Architecture(width=0.1))
    net.init_weights(0)
    state = TrainState.fresh(net.train())
    state.set_rate(1e-3)
    setup = replace(make_setup(micro_batch_size=1), num_workers=num_workers)
    model = ReducedPrecisionNet(state.net, setup.dtype)
    if num_workers > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    results, weights = [], []
    for batch_NCHW in batches_of_ranks():
        request = Request.CHECK_PREEMPTION if rank == 0 else Request.NOTHING
        results.append(train_step(model, state.optimizer, batch_NCHW[rank::num_workers], setup, request=request))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    torch.save((results, weights), folder / f"{num_workers}-{rank}.pt")
    if num_workers > 1:
        dist.destroy_process_group()


def test_all_ranks_skip_an_update_that_is_not_finite_on_one(tmp_path: Path):
    torch.multiprocessing.spawn(learn, (2, tmp_path), nprocs=2)
    learn(0, 1, tmp_path)
    (first, weights), (second, other_weights), (alone, _) = (
        torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("2-0", "2-1", "1-0")
    )
    assert [result.is_finite for result in first] == [True, False, True]
    assert [result.is_finite for result in second] == [True, False, True]
    assert all(mine.equal(others) for mine, others in zip(weights, other_weights, strict=True))
    assert weights[1].equal(weights[0]) and not weights[2].equal(weights[1])
    assert {result.request for result in first + second} == {Request.CHECK_PREEMPTION}
    for together, whole in ((first[0], alone[0]), (second[2], alone[2])):
        assert together.loss == pytest.approx(whole.loss, rel=1e-4)
        assert together.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-3)
