"""Large images: peak memory and seconds per megapixel, whole against tiled.

    python benchmarks/large.py [--megapixels 1 10 30 100] [--max-memory-gib 5] [--precision auto] [--threads 1]
                               [--photo FILE] [--model FILE] [--scratch-dir DIR] [--crop OUT.png] [--whole-up-to 30]

Every case runs in a separate process, whose peak resident set is measured by the system. ``--crop`` saves source and
result of the largest tiled image side by side, 800 px across the border of two bands, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from forward import drawn_image, network
from PIL import Image

from stylemill.nn.fast_net import FastNet
from stylemill.nn.memory import tiled_peak_bytes, whole_bytes
from stylemill.nn.tiled import stylize_tiled

Image.MAX_IMAGE_PIXELS = None
CASES = ("whole", "tiled")


def photo_of(path: str | None, megapixels: float) -> np.ndarray:
    """Return a 3:2 image of that size, from a photograph or drawn."""
    height_px = round((megapixels * 1e6 / 1.5) ** 0.5)
    size_px = (round(1.5 * height_px), height_px)
    if path is None:
        small_HWC = drawn_image(1024)
        return np.asarray(Image.fromarray(small_HWC).resize(size_px, Image.Resampling.BICUBIC))
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize(size_px, Image.Resampling.BICUBIC))


def forget_peak() -> None:
    """Reset the recorded peak: making the image took more than painting it may (Linux; see proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def one_case(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    megapixels = options.megapixels[0]
    image_HWC = photo_of(options.photo, megapixels)
    fast = FastNet(network(options.model, options.width), precision=options.precision)
    fast.stylize(image_HWC[:64, :64])
    forget_peak()
    before_bytes = peak_bytes()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    size_px = image_HWC.shape[:2]
    if options.case == "whole":
        painted_HWC = fast.stylize(image_HWC)
        estimate_bytes = whole_bytes(size_px, fast.architecture, fast.precision)
    else:
        limit_bytes = int(options.max_memory_gib * 2**30)
        painted_HWC = stylize_tiled(fast, image_HWC, max_memory_bytes=limit_bytes, scratch_dir=options.scratch_dir)
        estimate_bytes = tiled_peak_bytes(size_px, fast.architecture, fast.precision, max_memory_bytes=limit_bytes)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    peak = peak_bytes()
    if options.crop is not None and options.case == "tiled":
        row, column = size_px[0] // 2, size_px[1] // 2
        window = slice(row - 400, row + 400), slice(column - 400, column + 400)
        Image.fromarray(np.hstack((image_HWC[window], painted_HWC[window]))).save(options.crop)
    figures = {
        "case": options.case,
        "megapixels": round(image_HWC.size / 3e6, 1),
        "precision": fast.precision,
        "s_per_megapixel": wall_s / megapixels,
        "cpu_s_per_megapixel": cpu_s / megapixels,
        "peak_mib": peak >> 20,
        "before_mib": before_bytes >> 20,
        "estimate_mib": estimate_bytes >> 20,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 10, 30, 100])
    parser.add_argument("--max-memory-gib", type=float, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--photo")
    parser.add_argument("--model")
    parser.add_argument("--scratch-dir")
    parser.add_argument("--crop", type=Path)
    parser.add_argument("--whole-up-to", type=float, default=30)
    parser.add_argument("--case", choices=CASES, help="run one case in this process")
    options = parser.parse_args()
    if options.case is not None:
        one_case(options)
        return
    print(f"{date.today()}  torch {torch.__version__}  {options.threads} thread(s), limit {options.max_memory_gib} GiB")
    for megapixels in options.megapixels:
        for case in CASES:
            if case == "whole" and megapixels > options.whole_up_to:
                continue
            command = [sys.executable, *sys.argv, "--case", case, "--megapixels", str(megapixels)]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
