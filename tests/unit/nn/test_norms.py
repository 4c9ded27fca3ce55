"""Instance norms of one and of several styles against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stylemill.nn.norms import StyleNorm, apply_norm


def drawn_norm(dtype: torch.dtype = torch.float32) -> nn.InstanceNorm2d:
    generator = torch.Generator().manual_seed(1)
    norm = nn.InstanceNorm2d(12, affine=True).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(12, generator=generator))
        norm.bias.copy_(torch.randn(12, generator=generator))
    return norm


def drawn_features(dtype: torch.dtype, memory_format: torch.memory_format = torch.channels_last) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    # Images of different brightness and contrast: a mean over the batch would not do.
    values = torch.randn(3, 12, 10, 14, generator=generator) * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1, 1) + 2
    return values.to(dtype).contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_result_and_derivatives_are_those_of_torch(dtype, tolerance, memory_format):
    found_in, exact_in = drawn_features(dtype, memory_format), drawn_features(dtype).detach().double().requires_grad_()
    norm, exact = drawn_norm(torch.float64 if dtype == torch.float64 else torch.float32), drawn_norm(torch.float64)
    found = apply_norm(found_in, norm)
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
    values = drawn_features(torch.bfloat16)
    result = apply_norm(values, drawn_norm())
    assert result.is_contiguous(memory_format=torch.channels_last)
    # The gradient may come in any layout; its own follows the features.
    result.backward(torch.ones(result.shape, dtype=torch.bfloat16))
    assert values.grad.is_contiguous(memory_format=torch.channels_last)


def test_values_that_are_not_finite_remain_so_and_affect_only_their_image():
    values = drawn_features(torch.float32).detach().clone(memory_format=torch.channels_last)
    values[1, 4, 2, 2] = float("nan")
    result = apply_norm(values, drawn_norm())
    assert result[1, 4].isnan().all()
    assert result[[0, 2]].isfinite().all()


def test_parameters_without_gradients_and_no_grad_are_fine():
    norm = drawn_norm().requires_grad_(False)
    values = drawn_features(torch.float32)
    apply_norm(values, norm).sum().backward()
    assert norm.weight.grad is None
    with torch.no_grad():
        assert not apply_norm(values, norm).requires_grad


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_every_image_has_the_scale_and_shift_of_its_style(dtype, tolerance, memory_format):
    norm = StyleNorm(12, 4).to(torch.float64 if dtype == torch.float64 else torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter.copy_(torch.randn(4, 12, generator=generator))
    exact_weight, exact_bias = (tensor.detach().double().requires_grad_() for tensor in (norm.weight, norm.bias))
    found_in, exact_in = drawn_features(dtype, memory_format), drawn_features(dtype).detach().double().requires_grad_()
    styles_N = torch.tensor([2, 0, 2])
    found = apply_norm(found_in, norm, styles_N)
    expected = torch.cat([
        F.instance_norm(exact_in[n : n + 1], weight=exact_weight[style], bias=exact_bias[style], eps=norm.eps)
        for n, style in enumerate(styles_N)
    ])  # fmt: skip
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    found.backward(direction)
    expected.backward(direction.double())
    assert found.dtype == dtype
    for one, other in (
        (found, expected), (found_in.grad, exact_in.grad), (norm.weight.grad, exact_weight.grad),
        (norm.bias.grad, exact_bias.grad),
    ):  # fmt: skip
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * other.abs().max().item())
    assert norm.weight.grad[[1, 3]].eq(0).all()
