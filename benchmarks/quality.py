"""Artefacts that a style model leaves in its pictures: the network's grid, and textures on flat colours.

    python benchmarks/quality.py --photos DIR --model style.safetensors [--model ...]

For each model: energy at periods of 2, 8/3 and 4 px over that of the frequencies around them (1 is none), geometric
means over the photographs with the largest value of all behind them, and the same of the photographs themselves; then
mean colour and deviation of the results for a grey, a black and a white image. Painting is as `stylemill stylize`
does it.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from stylemill.evaluation.image_metrics import WINDOW_PX, GridEnergy, grid_energy
from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import resolve_precision
from stylemill.storage import Storage
from stylemill.style_model import load_style_model

NUM_PHOTOS, SIDE_PX = 8, 512
FLAT = {"grey": 128, "black": 0, "white": 255}


def load_photos(folder: Path) -> list[np.ndarray]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = []
    for path in paths[:: max(1, len(paths) // NUM_PHOTOS)][:NUM_PHOTOS]:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((SIDE_PX, SIDE_PX))
        if min(small.size) >= WINDOW_PX:
            photos.append(np.asarray(small))
    return photos


def print_grid(name: str, energies: list[GridEnergy]) -> None:
    means = {
        field: statistics.geometric_mean(asdict(energy)[field] for energy in energies) for field in asdict(energies[0])
    }
    columns = ", ".join(f"{field} {mean:.2f}" for field, mean in means.items())
    print(f"{name}: {columns}; largest {max(energy.worst for energy in energies):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    photos = load_photos(arguments.photos)
    print_grid(f"{len(photos)} photographs", [grid_energy(photo) for photo in photos])
    for uri in arguments.model:
        net = FastNet(
            load_style_model(Storage(), uri).build_network(),
            precision=resolve_precision(arguments.precision),
            num_threads=arguments.threads,
        )
        print_grid(uri, [grid_energy(np.asarray(net.stylize(photo))) for photo in photos])
        for name, level in FLAT.items():
            painted = np.asarray(net.stylize(np.full((256, 256, 3), level, np.uint8))).reshape(-1, 3)
            colour = ", ".join(f"{value:.0f}" for value in painted.mean(axis=0))
            print(f"    {name} becomes ({colour}), deviation {painted.std(axis=0).max():.2f}")


if __name__ == "__main__":
    main()
