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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.evaluation.consistency import crop_difference, overlapping_crops, strokes
from stylemill.evaluation.image_metrics import palette
from stylemill.images.options import DecodeOptions
from stylemill.library_look import draw_photos, with_look
from stylemill.nn.fast_net import FastNet
from stylemill.painting.options import PaintOptions
from stylemill.report.evaluation_pages import spread
from stylemill.storage import Storage, resolve
from stylemill.style_model import StyleModel

SHOWN = 4
Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--size-px", type=int, default=320, help="longest side of the photographs")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    paint = PaintOptions(max_size_px=options.size_px)
    photos = draw_photos(Storage(), resolve(options.photos), paint, DecodeOptions(), num=64)
    crops = [overlapping_crops(photo_HWC)[:2] for photo_HWC in photos]
    rows = [_strip(crops[:SHOWN])]
    print(f"{len(photos)} photographs")
    print("| model | look | crops | palette | strokes |")
    print("| --- | --- | ---: | ---: | ---: |")
    for location in options.model:
        model = StyleModel.load(location)
        for look, form in (("image", model), ("library", with_look(model, photos[:32]))):
            net = FastNet(form.build_network(), precision="float32")
            painted = [net.stylize(photo_HWC) for photo_HWC in photos]
            pairs = [tuple(net.stylize(crop) for crop in pair) for pair in crops[:SHOWN]]
            difference = float(np.mean([crop_difference(net.stylize, photo_HWC) for photo_HWC in photos]))
            spreads = [
                spread([of(picture) for picture in painted], [of(photo) for photo in photos]) or 0.0
                for of in (palette, strokes)
            ]
            print(f"| {model.name} | {look} | {difference:.1f} | {spreads[0]:.2f} | {spreads[1]:.2f} |", flush=True)
            rows.append(_strip(pairs))
    if options.sheet:
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


def _strip(pairs: list[tuple[Picture, Picture]]) -> Picture:
    """Return crops of 200 px height side by side, 1200 px wide in all."""
    height_px, width_px = 200, 150
    tiles = [np.asarray(Image.fromarray(crop).resize((width_px, height_px))) for pair in pairs for crop in pair]
    return np.concatenate(tiles, axis=1)


if __name__ == "__main__":
    main()
