"""The network on a GPU: forward rate, share of the matrix-product peak, and the rate with transfers.

    python benchmarks/gpu.py [--size-px 512] [--batches 1 4 16] [--rounds 20] [--compile] [--model FILE]

Needs a GPU, torch, numpy, pillow and safetensors, and this checkout on the path; nothing else. Rounds are interleaved:
the matrix product (8192 x 8192 x 8192, bfloat16) is measured between the batches it is compared with.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import date

import numpy as np
import torch
from forward import drawn_image, flops_of, network

from stylemill.nn.fast_net import FastNet
from stylemill.nn.pixels import deprocess, normalize

MATRIX_SIDE = 8192
BATCHES_IN_FLIGHT = 3


def seconds_of(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def in_flight_rate(fast: FastNet, batch_NHWC: np.ndarray, batches: int) -> float:
    """Images per second from host memory to host memory with several batches in flight."""
    flights: deque = deque()
    start_s = time.perf_counter()
    for _ in range(batches):
        flights.append(fast.submit_batch(batch_NHWC))
        if len(flights) >= BATCHES_IN_FLIGHT:
            flights.popleft().result()
    while flights:
        flights.popleft().result()
    return batches * len(batch_NHWC) / (time.perf_counter() - start_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--model")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this machine has no GPU that torch can use")
    net = network(options.model, options.width)
    fast = FastNet(net, precision="auto", device="cuda", compile_network=options.compile)
    assert fast.gpu is not None
    plain = network(options.model, options.width).cuda()
    flops = flops_of(net, options.size_px)
    left, right = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda").bfloat16() for _ in range(2))
    print(f"{date.today()}  torch {torch.__version__}  {torch.cuda.get_device_name()}  {fast.precision}")
    print(f"{'batch':>6}{'ms/image':>10}{'TFLOP/s':>9}{'of peak':>9}{'x eager':>9}{'images/s with transfers':>25}")
    for batch in options.batches:
        batch_NHWC = np.stack([drawn_image(options.size_px)] * batch)
        on_gpu_NHWC = torch.from_numpy(batch_NHWC).cuda()

        @torch.inference_mode()
        def eager(images_NHWC: torch.Tensor = on_gpu_NHWC) -> torch.Tensor:
            return deprocess(plain(normalize(images_NHWC)))

        def ours(images: np.ndarray = batch_NHWC) -> object:
            return fast.submit_batch(images).result()

        for _ in range(4):
            eager()
            ours()
        times: dict[str, list[float]] = {"product": [], "eager": [], "ours": []}
        for _ in range(options.rounds):
            times["product"].append(seconds_of(lambda: torch.mm(left, right)))
            times["eager"].append(seconds_of(eager))
            times["ours"].append(fast.gpu.seconds(batch_NHWC))
        peak = 2 * MATRIX_SIDE**3 / statistics.median(times["product"])
        ours_s = statistics.median(times["ours"])
        ratio = statistics.median(one / other for one, other in zip(times["eager"], times["ours"], strict=True))
        rate = batch * flops / ours_s
        images_per_s = in_flight_rate(fast, batch_NHWC, options.rounds)
        print(f"{batch:6}{1000 * ours_s / batch:10.2f}{rate / 1e12:9.1f}{rate / peak:9.2f}{ratio:9.2f}", end="")
        print(f"{images_per_s:25.1f}")


if __name__ == "__main__":
    main()
