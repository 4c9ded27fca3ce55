"""Needs a GPU, torch, numpy, pillow and safetensors, and this checkout on the path; nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import resolve_precision
from stylemill.nn.transformer_net import Architecture, TransformerNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def network(upsampling="nearest"):
    net = TransformerNet(Architecture(width=0.5, upsampling=upsampling)).eval()
    net.init_weights(0)
    return net


def images(count, height_px=120, width_px=150):
    y, x = np.mgrid[:height_px, :width_px] / 37.0
    waves = [np.stack([np.sin(x + k + 2 * y), np.cos(3 * x - y), np.sin(x * y)], axis=-1) for k in range(count)]
    return (127.5 + 120 * np.stack(waves)).astype(np.uint8)


def psnr_db(a, b):
    error = np.mean((np.clip(a, 0, 255).astype(float) - np.clip(b, 0, 255)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
def test_float32_equals_the_cpu(upsampling, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net, image_HWC = network(upsampling), images(1)[0]
    on_gpu = FastNet(net, precision="float32", device="cuda").values(image_HWC)
    on_cpu = FastNet(net, precision="float32").values(image_HWC)
    assert np.abs(on_gpu - on_cpu).max() < 0.25


def test_bfloat16_is_close_to_the_cpu():
    if resolve_precision("auto", "cuda") != "bfloat16":
        pytest.skip("this GPU has no native bfloat16")
    net, image_HWC = network(), images(1)[0]
    on_gpu = FastNet(net, precision="bfloat16", device="cuda").values(image_HWC)
    assert psnr_db(on_gpu, FastNet(net, precision="float32").values(image_HWC)) > 40


def test_replays_of_a_graph_give_what_the_first_calls_gave():
    fast, batch_NHWC = FastNet(network(), precision="auto", device="cuda"), images(3)
    first = fast.stylize_batch(batch_NHWC)
    for _ in range(4):
        assert psnr_db(fast.stylize_batch(batch_NHWC), first) > 50
    other = fast.stylize_batch(batch_NHWC[::-1].copy())
    assert psnr_db(other[::-1], first) > 50


def test_batches_in_flight_come_back_in_order_and_apart():
    fast, batch_NHWC = FastNet(network(), precision="auto", device="cuda"), images(6)
    alone = [fast.stylize(image_HWC) for image_HWC in batch_NHWC]
    flights = [fast.submit_batch(batch_NHWC[k : k + 1]) for k in range(6)]
    for flight, wanted_HWC in zip(flights, alone, strict=True):
        assert psnr_db(flight.result()[0], wanted_HWC) > 50


def test_more_shapes_than_graphs():
    fast = FastNet(network(), precision="auto", device="cuda")
    for _ in range(4):
        for width_px in range(60, 120, 5):
            image_HWC = images(1, 64, width_px)[0]
            assert fast.stylize(image_HWC).shape == image_HWC.shape


def test_a_batch_larger_than_the_gpu_is_an_out_of_memory_error_and_not_the_end():
    fast = FastNet(network(), precision="auto", device="cuda")
    huge_NHWC = np.zeros((64, 8192, 8192, 3), np.uint8)
    with pytest.raises(torch.OutOfMemoryError):
        fast.stylize_batch(huge_NHWC)
    torch.cuda.empty_cache()
    assert fast.stylize(images(1)[0]).shape == (120, 150, 3)
