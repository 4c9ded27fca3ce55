"""``train_step`` in two processes over gloo, as two workers run it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import style_target
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.training.checkpoint import TrainState
from stylemill.training.train_step import ReducedPrecisionNet, Request, StepSetup, train_step

SIDE_PX, BATCH = 32, 4


def draw(seed: int, num: int = BATCH) -> torch.Tensor:
    return torch.randn(num, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(seed))


def batches() -> list[torch.Tensor]:
    """Return three batches; in the second one a single value of the last sample, the second rank's, is not finite."""
    drawn = [draw(seed) for seed in range(3)]
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
    network = PyramidLossNetwork()
    setup = StepSetup(
        loss_network=network, target=style_target(network, draw(9, 1)), weights=LossWeights(), dtype=torch.float32,
        max_gradient_norm=10.0, batch_size=BATCH, num_workers=num_workers, micro_batch_size=1,
    )  # fmt: skip
    model = ReducedPrecisionNet(state.net, setup.dtype)
    if num_workers > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    results, weights = [], []
    for batch_NCHW in batches():
        request = Request.CHECK_PREEMPTION if rank == 0 else Request.NOTHING
        results.append(train_step(model, state.optimizer, batch_NCHW[rank::num_workers], setup, request=request))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    torch.save((results, weights), folder / f"{num_workers}-{rank}.pt")
    if num_workers > 1:
        dist.destroy_process_group()


def test_what_one_rank_meets_all_ranks_skip(tmp_path: Path):
    torch.multiprocessing.spawn(learn, (2, tmp_path), nprocs=2)
    torch.multiprocessing.spawn(learn, (1, tmp_path), nprocs=1)
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
