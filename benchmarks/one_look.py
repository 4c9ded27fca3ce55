"""How alike styles paint the pictures of a library: each by its own statistics, and with the look of the library.

    python benchmarks/one_look.py --model a.safetensors --model b.safetensors --photos photos --sheet sheet.png

For every model, and the same with the library's look, prints

- *crops*: the mean difference, of 255 levels, between the paintings of two overlapping crops of a photograph, where
  both show the same;
- *palette*: the spread of the mean colours (CIELAB) of the paintings over the photographs, divided by that of the
  photographs themselves;
- *strokes*: the same of the logarithm of the energy of details of 1, 2, 4 and 8 px.

The sheet shows the two crops of some photographs side by side: the photographs, then both forms of each model.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from skimage.filters import gaussian

from stylemill.images.options import DecodeOptions
from stylemill.library_look import draw_photos, with_look
from stylemill.nn.fast_net import FastNet
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage, resolve
from stylemill.style_model import load_style_model

SHOWN = 4
BORDER_PX = 24
"""Rows and columns at the edges of crops that are not compared."""

Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--size-px", type=int, default=320, help="longest side of the photographs")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    storage, paint = Storage(), PaintOptions(max_size_px=options.size_px)
    photos = draw_photos(storage, resolve(options.photos), paint, DecodeOptions(), num=64)
    crops = [_crops(photo_HWC) for photo_HWC in photos]
    rows = [_strip(crops[:SHOWN])]
    print(f"{len(photos)} photographs")
    print("| model | look | crops | palette | strokes |")
    print("| --- | --- | ---: | ---: | ---: |")
    for location in options.model:
        model = load_style_model(storage, resolve(location))
        for look, form in (("image", model), ("library", with_look(model, photos[:32]))):
            net = FastNet(form.build_network(), precision="float32")
            painted = [net.stylize(photo_HWC) for photo_HWC in photos]
            pairs = [(net.stylize(left), net.stylize(right)) for left, right in crops]
            difference = float(np.mean([_difference(photo, pair) for photo, pair in zip(photos, pairs, strict=True)]))
            spreads = [_spread(painted, of) / _spread(photos, of) for of in (_palette, _strokes)]
            print(f"| {model.name} | {look} | {difference:.1f} | {spreads[0]:.2f} | {spreads[1]:.2f} |", flush=True)
            rows.append(_strip(pairs[:SHOWN]))
    if options.sheet:
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


def _crops(photo_HWC: Picture) -> tuple[Picture, Picture]:
    """Return the left and the right three quarters of a photograph."""
    width_px = 3 * photo_HWC.shape[1] // 4
    return photo_HWC[:, :width_px], photo_HWC[:, -width_px:]


def _difference(photo_HWC: Picture, painted: tuple[Picture, Picture]) -> float:
    shift_px = photo_HWC.shape[1] - painted[0].shape[1]
    left, right = painted[0][:, shift_px:], painted[1][:, : painted[0].shape[1] - shift_px]
    inner = (slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX))
    return float(np.abs(left[inner].astype(float) - right[inner]).mean())


def _spread(pictures: list[Picture], features: object) -> float:
    values = np.stack([features(picture) for picture in pictures])  # type: ignore[operator]
    return float(np.sqrt(values.var(axis=0).sum()))


def _palette(picture_HWC: Picture) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = rgb2lab(picture_HWC).mean(axis=(0, 1))
    return mean


def _strokes(picture_HWC: Picture) -> NDArray[np.float64]:
    light_HW = rgb2lab(picture_HWC)[..., 0]
    scales = [gaussian(light_HW, sigma) if sigma else light_HW for sigma in (0, 1, 2, 4, 8)]
    details = [finer - coarser for finer, coarser in itertools.pairwise(scales)]
    return np.array([np.log(detail.var() + 1e-3) for detail in details])


def _strip(pairs: list[tuple[Picture, Picture]]) -> Picture:
    """Return crops of 200 px height side by side, 1200 px wide in all."""
    height_px, width_px = 200, 150
    tiles = [np.asarray(Image.fromarray(crop).resize((width_px, height_px))) for pair in pairs for crop in pair]
    return np.concatenate(tiles, axis=1)


if __name__ == "__main__":
    main()
