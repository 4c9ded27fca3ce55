"""How much the paintings of a pan flicker: a window moves over photographs, and each frame is painted by itself.

    python benchmarks/flicker.py --model a.safetensors --model b.safetensors --photos photos

For every model prints the mean difference, of 255 levels, between the paintings of consecutive frames where both show
the same: of a pan by 3 px a frame, and of a still camera whose sensor has noise of 2 levels; then of the same model
with the look of the photographs (``stylemill models look``).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stylemill.images.options import DecodeOptions
from stylemill.library_look import draw_photos, with_look
from stylemill.nn.fast_net import FastNet
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage, resolve
from stylemill.style_model import StyleModel

FRAMES = 8
SPEED_PX = 3
NOISE_LEVELS = 2.0
BORDER_PX = 24
"""Rows and columns at the edges of frames that are not compared."""

Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--num", type=int, default=12, help="photographs")
    parser.add_argument("--size-px", type=int, default=384, help="longest side of the photographs")
    options = parser.parse_args()
    paint = PaintOptions(max_size_px=options.size_px)
    photos = draw_photos(Storage(), resolve(options.photos), paint, DecodeOptions(), num=options.num)
    least_px = (FRAMES - 1) * SPEED_PX + 4 * BORDER_PX
    photos = [photo_HWC for photo_HWC in photos if min(photo_HWC.shape[:2]) >= least_px]
    if not photos:
        parser.error(f"--photos has none of at least {least_px} px on each side")
    print(f"{len(photos)} photographs")
    print("| model | look | pan | noise |\n| --- | --- | ---: | ---: |")
    still = np.mean([_flicker(lambda frame_HWC: frame_HWC, *_still(photo_HWC)) for photo_HWC in photos])
    print(f"| the photographs | | 0.0 | {still:.1f} |")
    for location in options.model:
        model = StyleModel.load(location)
        for look, form in (("image", model), ("library", with_look(model, photos))):
            stylize = FastNet(form.build_network(), precision="float32").stylize
            figures = [np.mean([_flicker(stylize, *frames(photo)) for photo in photos]) for frames in (_pan, _still)]
            print(f"| {model.name} | {look} | {figures[0]:.1f} | {figures[1]:.1f} |", flush=True)


def _pan(photo_HWC: Picture) -> tuple[list[Picture], int]:
    """Return the frames of a window that moves to the right, and the columns by which it moves in each."""
    width_px = photo_HWC.shape[1] - (FRAMES - 1) * SPEED_PX
    return [photo_HWC[:, start : start + width_px] for start in range(0, FRAMES * SPEED_PX, SPEED_PX)], SPEED_PX


def _still(photo_HWC: Picture) -> tuple[list[Picture], int]:
    """Return frames that differ by noise."""
    rng = np.random.default_rng(7)
    noisy = [photo_HWC + rng.normal(0, NOISE_LEVELS, photo_HWC.shape) for _ in range(FRAMES)]
    return [np.clip(np.round(frame_HWC), 0, 255).astype(np.uint8) for frame_HWC in noisy], 0


def _flicker(stylize: Callable[[Picture], Picture], frames: list[Picture], speed_px: int) -> float:
    painted = [stylize(np.ascontiguousarray(frame_HWC))[BORDER_PX:-BORDER_PX].astype(float) for frame_HWC in frames]
    inner = slice(BORDER_PX, -BORDER_PX)
    differences = []
    for before_HWC, after_HWC in itertools.pairwise(painted):
        shared_px = before_HWC.shape[1] - speed_px
        difference_HWC = before_HWC[:, speed_px:] - after_HWC[:, :shared_px]
        differences.append(np.abs(difference_HWC[:, inner]).mean())
    return float(np.mean(differences))


if __name__ == "__main__":
    main()
