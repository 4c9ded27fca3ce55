"""Bulk flow against a plain loop over the same network, decode and encode in one process.

    python benchmarks/bulk_vs_loop.py --input DIR [--model URI] [--rounds 3]

The loop is what a careful user would write: one process, all cores for the network, read, decode, stylize, encode,
write. Both run interleaved, ``--rounds`` times; medians and the ratio are printed. The bulk figure is the time from the
first image started to the last one written; the whole wall time (Ray's start and stop, planning, commit) is printed
next to it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from stylemill.cli.session import ray_session
from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.encode import encode
from stylemill.images.options import DecodeOptions, EncodeOptions, output_key
from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import resolve_precision
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, load_style_model, save_style_model
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.run import BulkResult, stylize


def plain_loop(model_uri: str, source: Path, out: Path, threads: int) -> tuple[float, int]:
    """Return seconds and images of the loop, model loading excluded."""
    torch.set_num_threads(threads)
    network = load_style_model(Storage(), model_uri).build_network()
    net = FastNet(network, precision=resolve_precision("auto"))
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    start_s, done = time.perf_counter(), 0
    for path in paths:
        try:
            image = decode(path.read_bytes(), DecodeOptions())
        except ImageError:
            continue
        encoded = encode(net.stylize(image.image_HWC), image, EncodeOptions())
        target = out / output_key(str(path.relative_to(source)), encoded.format)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded.data)
        done += 1
    return time.perf_counter() - start_s, done


def bulk(model_uri: str, source: Path, out: Path) -> BulkResult:
    """Paint with the bulk flow in a separate Ray session."""
    prepared = prepare(StylizeConfig(model=(model_uri,), input=str(source), out=str(out), runner="ray"))
    with ray_session():
        return stylize(prepared)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--model", help="style model; by default random weights of width 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the loop")
    arguments = parser.parse_args()
    loops, busy, walls = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        model_uri = arguments.model or random_model(scratch)
        for number in range(arguments.rounds):
            seconds, done = plain_loop(model_uri, arguments.input, Path(scratch, f"loop{number}"), arguments.threads)
            start_s = time.perf_counter()
            result = bulk(model_uri, arguments.input, Path(scratch, f"bulk{number}"))
            loops.append(seconds)
            busy.append(result.progress.busy_s)
            walls.append(time.perf_counter() - start_s)
            print(
                f"round {number + 1}: loop {loops[-1]:.1f} s, bulk {busy[-1]:.1f} s, wall {walls[-1]:.1f} s", flush=True
            )
    loop_s, busy_s = statistics.median(loops), statistics.median(busy)
    print(f"{done} images: loop {loop_s:.2f} s ({done / loop_s:.2f}/s), bulk {busy_s:.2f} s ({done / busy_s:.2f}/s)")
    print(
        f"bulk / loop = {busy_s / loop_s:.3f} (target: at most 1.15); whole wall time {statistics.median(walls):.1f} s"
    )


def random_model(scratch: str) -> str:
    """Write a style model of random weights at full width and return its location."""
    network = TransformerNet(Architecture())
    network.init_weights(0)
    model = StyleModel(
        name="random",
        version="0",
        architecture=network.architecture,
        state_dict=network.state_dict(),
        metadata={},
    )
    uri = str(Path(scratch, "random.safetensors"))
    save_style_model(Storage(), uri, model)
    return uri


if __name__ == "__main__":
    main()
