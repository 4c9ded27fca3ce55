from __future__ import annotations

import pytest
import torch

from stylemill.nn.losses import gram_matrix


def test_against_a_hand_computed_matrix():
    # Channels (1, 2, 3, 4) and (0, 1, 0, -1); C*H*W = 8.
    features_NCHW = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
    expected = torch.tensor([[[30.0, -2.0], [-2.0, 2.0]]]) / 8
    assert torch.equal(gram_matrix(features_NCHW), expected)


def test_each_image_of_a_batch_has_its_own_matrix_whatever_the_memory_layout():
    features_NCHW = torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    together = gram_matrix(features_NCHW.contiguous(memory_format=torch.channels_last))
    assert together.shape == (3, 5, 5)
    for image, gram_CC in zip(features_NCHW, together, strict=True):
        torch.testing.assert_close(gram_CC[None], gram_matrix(image[None]))


def test_half_precision_is_summed_in_float32_even_under_autocast():
    # 2^9 + 1 ones: bfloat16 stops counting at 256.
    features_NCHW = torch.ones(1, 1, 1, 513, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        gram_NCC = gram_matrix(features_NCHW)
    assert gram_NCC.dtype == torch.float32
    assert gram_NCC.item() == 1.0


def test_what_is_no_batch_of_features_is_refused():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        gram_matrix(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_is_that_of_the_formula(memory_format):
    features_NCHW = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features_NCHW = features_NCHW.to(memory_format=memory_format).requires_grad_()
    weights_NCC = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    (gram_matrix(features_NCHW) * weights_NCC).sum().backward()
    plain = features_NCHW.detach().clone().requires_grad_()
    flat = plain.reshape(2, 3, 20)
    (flat @ flat.transpose(1, 2) / 60 * weights_NCC).sum().backward()
    torch.testing.assert_close(features_NCHW.grad, plain.grad, rtol=1e-5, atol=1e-7)
