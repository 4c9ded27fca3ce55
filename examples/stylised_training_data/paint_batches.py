"""Training data in random styles: a classifier that sees each image in another style learns shapes, not textures.

    python examples/stylised_training_data/paint_batches.py PHOTOS OUT MODEL [MODEL ...]
    python examples/stylised_training_data/paint_batches.py                  # small classes of sample photographs

PHOTOS holds one folder for each class. The pipeline is a plain Ray Data pipeline; ``stylemill.Stylizer`` is one stage
of it. A hash of an image chooses its style, which so stays the same whatever the batches, the workers and the order.
After Geirhos et al. 2019, arXiv:1811.12231.
"""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

import stylemill

SIDE_PX = 128
"""Side of the images that the classifier is trained on."""


def decode(row: dict[str, Any]) -> dict[str, Any]:
    """Return one image at the size of the training, with its key and its class."""
    path = Path(row["path"])
    image = Image.open(io.BytesIO(row["bytes"])).convert("RGB").resize((SIDE_PX, SIDE_PX))
    return {"key": f"{path.parent.name}/{path.name}", "label": path.parent.name, "image": np.asarray(image)}


def main(arguments: list[str]) -> None:
    """Paint the photographs below the first location and write the training data to the second, as Parquet."""
    if not arguments:
        write_samples(Path("classes"))
        arguments = ["classes", "training-data", "builtin"]
    photos, out, *models = arguments
    if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        ray.init(address="local")  # otherwise Ray joins whatever cluster runs, or ran, on this machine
    data = ray.data.read_binary_files(str(Path(photos).absolute()), include_paths=True).map(decode)
    workers = ray.data.ActorPoolStrategy(size=1)
    painted = data.map_batches(
        stylemill.Stylizer, fn_constructor_kwargs={"model": models}, batch_size=16, compute=workers
    )
    painted.drop_columns(["image"]).write_parquet(str(Path(out).absolute()), mode="overwrite")

    rows = ray.data.read_parquet(str(Path(out).absolute())).sort("key").take_all()
    for (label, style), count in sorted(Counter((row["label"], row["style"]) for row in rows).items()):
        print(f"{label:<10} {style:<16} {count} images")
    sheet = Image.new("RGB", (8 * SIDE_PX, -(-len(rows) // 8) * SIDE_PX), "white")
    for index, row in enumerate(rows):
        sheet.paste(Image.fromarray(np.asarray(row["painted"])), (index % 8 * SIDE_PX, index // 8 * SIDE_PX))
    sheet.save(f"{out}.jpg", quality=85)
    print(f"{len(rows)} rows in {out}/, all of them in {out}.jpg")


def write_samples(folder: Path) -> None:
    """Write four classes of eight crops each, of photographs that come with scikit-image."""
    from skimage import data

    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = Image.fromarray(getattr(data, name)())
        side = min(photo.size) * 3 // 4
        for number in range(8):
            left, top = (photo.width - side) * (number % 4) // 3, (photo.height - side) * (number // 4)
            (folder / name).mkdir(parents=True, exist_ok=True)
            crop = photo.crop((left, top, left + side, top + side)).resize((192, 192))
            crop.save(folder / name / f"{number}.jpg", quality=90)


if __name__ == "__main__":
    main(sys.argv[1:])
