"""The convolutions of a frozen network against torch's: results, gradients, and what may be computed so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylemill.nn.cpu.compiled import LIBRARY
from stylemill.nn.cpu.frozen_conv import FrozenConv, can_be_frozen
from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.loss_networks import vgg
from stylemill.nn.loss_networks.vgg import VggLossNetwork
from tests.unit.nn.loss_networks.test_vgg import random_weights

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler")


def drawn_layer(in_channels, out_channels, **options):
    torch.manual_seed(in_channels)
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, **options)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("channels", [(32, 32), (32, 64), (96, 40)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (24, 24), (33, 150)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_results_and_gradients_are_those_of_the_layer(channels, size, bias):
    layer = drawn_layer(*channels, bias=bias)
    frozen, found = FrozenConv(layer, ThreadTeam(2)), []
    upstream_NCHW = torch.randn(3, channels[1], *size)
    for conv in (frozen, layer):
        batch_NCHW = torch.randn(3, channels[0], *size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        result_NCHW = conv(batch_NCHW)
        # In place, as the network's ReLU, whose gradient would jump where rounding changes a sign.
        result_NCHW.mul_(0.5).mul(upstream_NCHW).sum().backward()
        found.append((result_NCHW, batch_NCHW.grad))
    for got, wanted in zip(*found, strict=True):
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() < 3e-4 * (1 + wanted.abs().max())


@pytest.mark.usefixtures("two_torch_threads")
def test_bits_do_not_depend_on_threads():
    layer, batch_NCHW = drawn_layer(32, 48), torch.randn(3, 32, 37, 52)
    results = []
    for threads in (1, 2):
        frozen = FrozenConv(layer, ThreadTeam(threads))
        results.append((frozen.forward(batch_NCHW), frozen.backward(batch_NCHW[:, :1].repeat(1, 48, 1, 1))))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_what_can_be_computed_so():
    batch_NCHW = torch.zeros(1, 32, 8, 8)
    assert can_be_frozen(drawn_layer(32, 32), batch_NCHW)
    assert not can_be_frozen(drawn_layer(32, 32).bfloat16(), batch_NCHW.bfloat16())
    assert not can_be_frozen(drawn_layer(3, 64), batch_NCHW)
    assert not can_be_frozen(drawn_layer(32, 32, stride=2), batch_NCHW)
    assert not can_be_frozen(drawn_layer(32, 32, groups=2), batch_NCHW)
    assert not can_be_frozen(nn.Conv2d(32, 32, 3), batch_NCHW)


def test_a_loss_network_has_the_features_and_gradients_of_its_plain_layers(monkeypatch):
    network = VggLossNetwork("vgg16", random_weights("vgg16"))
    batch_NCHW = torch.randn(2, 3, 40, 56).requires_grad_()

    def features_and_gradient():
        features = network.features(batch_NCHW)
        maps = [*features.content.values(), *features.style.values()]
        (gradient,) = torch.autograd.grad(sum(one.square().mean() for one in maps), batch_NCHW)
        return [*(one.detach() for one in maps), gradient]

    got = features_and_gradient()
    assert len(network._frozen) >= 8
    monkeypatch.setattr(vgg, "can_be_frozen", lambda *_: False)
    for one, wanted in zip(got, features_and_gradient(), strict=True):
        assert (one - wanted).norm() < 0.01 * wanted.norm()


def test_a_second_derivative_is_refused():
    frozen, batch_NCHW = FrozenConv(drawn_layer(32, 32), ThreadTeam(1)), torch.randn(1, 32, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(frozen(batch_NCHW).square().sum(), batch_NCHW, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_other_parameters_are_not_computed_with_old_kernels():
    network = VggLossNetwork("vgg16", random_weights("vgg16"))
    network.content(torch.randn(1, 3, 32, 32))
    assert network._frozen
    assert not network.to(torch.bfloat16)._frozen


def test_without_gradients_only_the_forward_kernels_are_prepared():
    network = VggLossNetwork("vgg16", random_weights("vgg16"))
    network.content(torch.randn(1, 3, 32, 32))
    assert network._frozen and all(frozen._backwards is None for frozen in network._frozen.values())
