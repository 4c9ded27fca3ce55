"""Statistics of a library in the place of each image's own, against torch's batch norm over one batch."""

from __future__ import annotations

import pytest
import torch

from stylemill.nn.library_norm import library_statistics
from stylemill.nn.norms import BatchNorm
from stylemill.nn.transformer_net import Architecture, TransformerNet
from tests.unit.nn.nets import VARIANTS, variant_net

INSTANCE = {name: fields for name, fields in VARIANTS.items() if fields.get("norm", "instance") == "instance"}


def as_batch_norm(net: TransformerNet, statistics: dict[str, torch.Tensor]) -> TransformerNet:
    fields = {**vars(net.architecture), "norm": "batch"}
    made = TransformerNet(Architecture(**fields))
    made.load_state_dict(net.state_dict() | statistics)
    return made.eval()


@pytest.mark.parametrize("variant", INSTANCE)
def test_a_batch_is_painted_as_by_a_batch_norm_in_training(variant: str):
    net = variant_net(width=0.1, **INSTANCE[variant])
    batch_NCHW = torch.randn(3, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    batch_NCHW *= torch.tensor([1.0, 0.3, 2.0]).view(3, 1, 1, 1)
    look = as_batch_norm(net, library_statistics(net, list(batch_NCHW.split(1))))
    training = as_batch_norm(net, library_statistics(net, list(batch_NCHW.split(1)))).train()
    assert any(isinstance(module, BatchNorm) for module in look.modules())
    with torch.no_grad():
        torch.testing.assert_close(look(batch_NCHW), training(batch_NCHW), rtol=1e-3, atol=1e-3)


def test_one_photograph_alone_is_painted_as_by_its_instance_norms():
    net = variant_net(width=0.1)
    photo_NCHW = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(2))
    look = as_batch_norm(net, library_statistics(net, [photo_NCHW]))
    with torch.no_grad():
        torch.testing.assert_close(look(photo_NCHW), net(photo_NCHW), rtol=1e-3, atol=1e-3)


def test_photographs_of_any_size_have_the_same_weight():
    net = variant_net(width=0.1)
    generator = torch.Generator().manual_seed(3)
    small, large = torch.randn(1, 3, 16, 16, generator=generator), torch.randn(1, 3, 64, 48, generator=generator) + 2
    statistics = library_statistics(net, [small, large])
    means = [library_statistics(net, [photo])["stem.norm.running_mean"] for photo in (small, large)]
    torch.testing.assert_close(statistics["stem.norm.running_mean"], torch.stack(means).mean(dim=0))
