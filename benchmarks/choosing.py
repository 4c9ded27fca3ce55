"""Makes the pictures of docs/choosing-a-style.md: python benchmarks/choosing.py --work DIR --out docs/images/choosing.

Trains the style that the project draws itself, on the demo's photographs, with the preset `quick` and one setting
changed at a time (some two minutes each on two free cores), and lays out what becomes of three photographs. A second
call continues where the first one stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

from stylemill.demo.library import build_training_content
from stylemill.demo.style_image import draw_style_image
from stylemill.nn.fast_net import FastNet
from stylemill.storage import Storage
from stylemill.style_model import load_style_model

CELL_PX, GAP_PX, LABEL_PX = 240, 6, 24
PHOTOS = {"chelsea.png": (100, 20, 360, 280), "coffee.png": (90, 0, 490, 400), "astronaut.png": (60, 0, 400, 340)}
"""Sample images of scikit-image, and the square that is shown."""
SHEETS = {
    "steps": {"After 50 steps": ["--steps", "50"], "After 500 steps": []},
    "style-size": {
        "--style-size-px 160": ["--style-size-px", "160"],
        "--style-size-px 320, the default": [],
        "--style-size-px 512": ["--style-size-px", "512"],
    },
    "style-weight": {
        "--style-weight 5": ["--style-weight", "5"],
        "--style-weight 15, the default": [],
        "--style-weight 40": ["--style-weight", "40"],
    },
}


def trained(work: Path, flags: list[str]) -> FastNet:
    """Return the network that ``stylemill train --preset quick`` with these flags gives."""
    out = work / ("-".join(flags).strip("-") or "default")
    subprocess.run(
        [sys.executable, "-m", "stylemill", "train", "--preset", "quick", "--style-image", str(work / "style.png"),
         "--content", str(work / "content"), "--out", str(out), *flags],
        check=True,
    )  # fmt: skip
    return FastNet(load_style_model(Storage(), str(out / "style.safetensors")).build_network(), precision="auto")


def photographs() -> list[np.ndarray]:
    """Return the photographs, (CELL_PX, CELL_PX, 3) uint8."""
    shown = []
    for name, box in PHOTOS.items():
        with Image.open(Path(skimage.data_dir) / name) as image:
            shown.append(np.asarray(image.convert("RGB").resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS, box)))
    return shown


def sheet(rows: dict[str, list[np.ndarray]]) -> Image.Image:
    """Lay out labelled rows of pictures."""
    columns = max(map(len, rows.values()))
    size = (columns * (CELL_PX + GAP_PX) - GAP_PX, len(rows) * (CELL_PX + LABEL_PX + GAP_PX))
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for number, (label, pictures) in enumerate(rows.items()):
        top = number * (CELL_PX + LABEL_PX + GAP_PX)
        draw.text((2, top + 2), label, fill="black", font=font)
        for column, picture_HWC in enumerate(pictures):
            page.paste(Image.fromarray(picture_HWC), (column * (CELL_PX + GAP_PX), top + LABEL_PX))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_style_image().save(arguments.work / "style.png")
    if not (arguments.work / "content").exists():
        build_training_content(arguments.work / "content")
    photos = photographs()
    for name, settings in SHEETS.items():
        rows = {"The photographs": photos} if name == "style-size" else {}
        for label, flags in settings.items():
            net = trained(arguments.work, flags)
            rows[label] = [net.stylize(photo_HWC) for photo_HWC in photos]
        sheet(rows).save(arguments.out / f"{name}.jpg", quality=84, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
