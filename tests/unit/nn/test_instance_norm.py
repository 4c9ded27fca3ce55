from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stylemill.nn.transformer_net import instance_norm


def make_norm(dtype: torch.dtype = torch.float32) -> nn.InstanceNorm2d:
    generator = torch.Generator().manual_seed(1)
    norm = nn.InstanceNorm2d(12, affine=True).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(12, generator=generator))
        norm.bias.copy_(torch.randn(12, generator=generator))
    return norm


def features(dtype: torch.dtype, memory_format: torch.memory_format = torch.channels_last) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    # Images of different brightness and contrast: a mean over the batch would not do.
    values = torch.randn(3, 12, 10, 14, generator=generator) * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1, 1) + 2
    return values.to(dtype).contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_result_and_derivatives_are_those_of_torch(dtype, tolerance, memory_format):
    found_in, exact_in = features(dtype, memory_format), features(dtype).detach().double().requires_grad_()
    norm, exact = make_norm(torch.float64 if dtype == torch.float64 else torch.float32), make_norm(torch.float64)
    found = instance_norm(found_in, norm)
    expected = F.instance_norm(exact_in, weight=exact.weight, bias=exact.bias, eps=exact.eps)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    found.backward(direction)
    expected.backward(direction.double())
    assert found.dtype == dtype
    for one, other in (
        (found, expected), (found_in.grad, exact_in.grad), (norm.weight.grad, exact.weight.grad),
        (norm.bias.grad, exact.bias.grad),
    ):  # fmt: skip
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * other.abs().max().item())


def test_channels_last_memory_stays_as_it_is():
    values = features(torch.bfloat16)
    result = instance_norm(values, make_norm())
    assert result.is_contiguous(memory_format=torch.channels_last)
    # The gradient may come in any layout; its own follows the features.
    result.backward(torch.ones(result.shape, dtype=torch.bfloat16))
    assert values.grad.is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_finite_stays_so_and_stays_in_its_image():
    values = features(torch.float32).detach().clone(memory_format=torch.channels_last)
    values[1, 4, 2, 2] = float("nan")
    result = instance_norm(values, make_norm())
    assert result[1, 4].isnan().all()
    assert result[[0, 2]].isfinite().all()


def test_parameters_without_gradients_and_no_grad_are_fine():
    norm = make_norm().requires_grad_(False)
    values = features(torch.float32)
    instance_norm(values, norm).sum().backward()
    assert norm.weight.grad is None
    with torch.no_grad():
        assert not instance_norm(values, norm).requires_grad
