"""How good a network is in iterations of direct optimisation: python benchmarks/yardstick.py --model URI --out DIR.

Photographs of scikit-image, the style that the project draws itself, one thread, CPU time; one JSON line for each run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image

from stylemill.demo.style_image import draw_style_image
from stylemill.evaluation.config import JudgeConfig
from stylemill.evaluation.judge import Judge, at_size, load_judge
from stylemill.evaluation.optimize import REPORTED_ITERATIONS, optimize_pixels
from stylemill.nn.fast_net import FastNet
from stylemill.storage import Storage
from stylemill.style_model import load_style_model

VARIANTS = (
    ("lbfgs", "noise", "full"),
    ("adam", "content", "full"),
    ("sgd", "content", "full"),
    ("adam", "noise", "full"),
    ("sgd", "noise", "full"),
    ("lbfgs", "content", "diagonal"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures")
    parser.add_argument("--loss-network", default="vgg16", choices=("vgg16", "pyramid"))
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--photos", default="astronaut.png,coffee.png")
    parser.add_argument(
        "--iterations", type=int, default=REPORTED_ITERATIONS[-1], help="of L-BFGS from content, on every photo"
    )
    parser.add_argument(
        "--other-iterations", type=int, default=100, help="of the others, on the first photo; 0 leaves them out"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    style = arguments.out / "style.png"
    draw_style_image().save(style)
    judge = load_judge(Storage(), JudgeConfig(loss_network=arguments.loss_network), style_image=str(style))
    net = FastNet(load_style_model(Storage(), arguments.model).build_network(), precision="auto", num_threads=1)
    photos = [_photo(name, arguments.size_px) for name in arguments.photos.split(",")]
    for number, photo_HWC in enumerate(photos):
        _network(judge, net, photo_HWC, arguments.out, number)
        _optimized(judge, photo_HWC, arguments.out, number, arguments.iterations, "lbfgs", "content", "full")
    for variant in VARIANTS if arguments.other_iterations else ():
        _optimized(judge, photos[0], arguments.out, 0, arguments.other_iterations, *variant)


def _photo(name: str, size_px: int) -> np.ndarray:
    path = Path(skimage.__file__).parent / "data" / name
    return np.ascontiguousarray(at_size(np.asarray(Image.open(path).convert("RGB")), size_px))


def _network(judge: Judge, net: FastNet, photo_HWC: np.ndarray, out: Path, number: int) -> None:
    painted_HWC = net.stylize(photo_HWC)
    start_s, rounds = time.process_time(), 5
    for _ in range(rounds):
        net.stylize(photo_HWC)
    cpu_s = (time.process_time() - start_s) / rounds
    Image.fromarray(photo_HWC).save(out / f"{number}-source.png")
    Image.fromarray(painted_HWC).save(out / f"{number}-network.png")
    _tell(run="network", photo=number, loss=judge.losses(painted_HWC, photo_HWC).total, cpu_s=cpu_s)


def _optimized(
    judge: Judge, photo_HWC: np.ndarray, out: Path, number: int, iterations: int, optimizer: Any, start: Any, gram: Any
) -> None:
    marks = [mark for mark in REPORTED_ITERATIONS if mark <= iterations]
    measure_s = _cpu_s_of_measuring(judge, photo_HWC)
    start_s = time.process_time()
    found = optimize_pixels(
        judge, photo_HWC, iterations=iterations, optimizer=optimizer, start=start, gram=gram, snapshots=marks
    )
    cpu_s = time.process_time() - start_s - measure_s * (iterations + 1)
    for mark, picture_HWC in found.snapshots.items():
        Image.fromarray(picture_HWC).save(out / f"{number}-{optimizer}-{start}-{gram}-{mark}.png")
    _tell(
        run=f"{optimizer} {start} {gram}",
        photo=number,
        first=found.losses[0],
        losses={mark: found.losses[mark] for mark in marks},
        cpu_s_each=cpu_s / iterations,
        curve=[round(loss, 4) for loss in found.losses.tolist()],
    )


def _cpu_s_of_measuring(judge: Judge, photo_HWC: np.ndarray) -> float:
    start_s = time.process_time()
    for _ in range(10):
        judge.losses(photo_HWC, photo_HWC)
    return (time.process_time() - start_s) / 10


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
