"""How much damage is noticed: decodes sound files and damaged copies of them, and reports rates per format.

    python benchmarks/damage.py --photos FOLDER [--photos FOLDER] [--sound FOLDER] [--num-damaged 2000] [--show MISSED]

Each photo is saved in one format after another (``FORMATS``) and each copy is damaged in one way after another:
cut, cut with an end marker behind, a block of zeros, a tail of zeros, five changed bytes. A damaged file counts as
noticed if it is refused, and does not count at all if its pixels are still right. Then every file of the photos and of
the folders ``--sound`` is decoded, and those that are refused as damaged are listed. Everything is decoded by
``IsolatedDecoder``, as in a bulk run.

    python benchmarks/damage.py --photos FOLDER --time

prints the milliseconds that an image of each format takes instead, the least of five rounds over 40 photos. To compare
two versions, run it in both checkouts in turns.
"""

from __future__ import annotations

import argparse
import collections
import io
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylemill.errors import ImageError, NotAnImage
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 88}),
    "jpeg, progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "jpeg, optimised 4:4:4": ("JPEG", {"quality": 80, "optimize": True, "subsampling": 0}),
    "jpeg, restart markers": ("JPEG", {"quality": 85, "restart_marker_rows": 2}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 85}),
    "webp, lossless": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {"quality": 75, "speed": 8}),
    "heif": ("HEIF", {"quality": 75}),
    "jpeg 2000": ("JPEG2000", {"irreversible": True, "quality_mode": "dB", "quality_layers": [40]}),
    "gif": ("GIF", {}),
    "tiff, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff, jpeg": ("TIFF", {"compression": "jpeg", "quality": 85}),
}
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82", "GIF": b"\x00;", "JPEG2000": b"\xff\xd9"}
HEADER = 0.03
"""The first part of a file, which is left as it is: a damaged header is noticed by every reader."""


def cut(data: bytes, rng: random.Random, end: bytes) -> bytes:
    return data[: rng.randrange(int(len(data) * HEADER), len(data) - 2)]


def cut_with_end(data: bytes, rng: random.Random, end: bytes) -> bytes:
    return cut(data, rng, end) + end


def zero_block(data: bytes, rng: random.Random, end: bytes) -> bytes:
    size = min(rng.choice([512, 1024, 4096, 16384, 65536]), len(data) // 2)
    at = rng.randrange(int(len(data) * HEADER), len(data) - size)
    return data[:at] + bytes(size) + data[at + size :]


def zero_tail(data: bytes, rng: random.Random, end: bytes) -> bytes:
    kept = len(cut(data, rng, end))
    return data[:kept] + bytes(len(data) - kept)


def changed_bytes(data: bytes, rng: random.Random, end: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(5):
        changed[rng.randrange(int(len(data) * HEADER), len(data))] = rng.randrange(256)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, random.Random, bytes], bytes]] = {
    "cut": cut,
    "cut, end marker": cut_with_end,
    "zero block": zero_block,
    "zero tail": zero_tail,
    "five bytes": changed_bytes,
}


def saved(photo: Path, container: str, options: dict[str, Any]) -> bytes:
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    image.thumbnail((640, 640))
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def decoded(decoder: IsolatedDecoder, data: bytes) -> np.ndarray | ImageError:
    try:
        return decoder.decode(data).image_HWC
    except ImageError as error:
        return error


def damaged_files(photos: list[Path], formats: dict[str, Any], count: int) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Yield format, damage, sound file and damaged file."""
    rng = random.Random(7)
    cycle = itertools.cycle(photos)
    made = 0
    while made < count:
        for name, (container, options) in formats.items():
            sound = saved(next(cycle), container, options)
            for damage, apply in DAMAGES.items():
                yield name, damage, sound, apply(sound, rng, END_MARKERS.get(container, b""))
                made += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, action="append", required=True)
    parser.add_argument("--sound", type=Path, action="append", default=[])
    parser.add_argument("--num-damaged", type=int, default=2000)
    parser.add_argument("--formats", default="", help="names of FORMATS, separated by semicolons")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--show", type=Path, help="folder for the damaged files that were not noticed")
    options = parser.parse_args()
    photos = sorted(path for folder in options.photos for path in folder.rglob("*") if path.is_file())
    formats = {name: FORMATS[name] for name in options.formats.split(";") if name} or dict(FORMATS)
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        formats.pop("heif", None)
    if options.time:
        _print_times(photos[:40], formats)
        return
    totals: collections.Counter[tuple[str, str]] = collections.Counter()
    noticed: collections.Counter[tuple[str, str]] = collections.Counter()
    with IsolatedDecoder(DecodeOptions()) as decoder:
        for index, (name, damage, sound, data) in enumerate(damaged_files(photos, formats, options.num_damaged)):
            found = decoded(decoder, data)
            if isinstance(found, ImageError):
                noticed[name, damage] += 1
            else:
                right = decoded(decoder, sound)
                if isinstance(right, ImageError):
                    raise SystemExit(f"a sound {name} is refused: {right}")
                if found.shape == right.shape and (found == right).all():
                    continue
                if options.show:
                    options.show.mkdir(parents=True, exist_ok=True)
                    (options.show / f"{index:05d}-{name}-{damage}".replace(" ", "-").replace(",", "")).write_bytes(data)
            totals[name, damage] += 1
        _print_table(formats, totals, noticed)
        _print_sound([*photos, *(p for folder in options.sound for p in sorted(folder.rglob("*")))], decoder)


def _print_times(photos: list[Path], formats: dict[str, Any]) -> None:
    with IsolatedDecoder(DecodeOptions()) as decoder:
        for name, (container, settings) in formats.items():
            files = [saved(photo, container, settings) for photo in photos]
            rounds = []
            for _ in range(5):
                start_s = time.perf_counter()
                for data in files:
                    decoder.decode(data)
                rounds.append((time.perf_counter() - start_s) / len(files))
            print(f"{name}: {1000 * min(rounds):.2f} ms")


def _print_table(formats: dict[str, Any], totals: collections.Counter, noticed: collections.Counter) -> None:
    print("| format | " + " | ".join(DAMAGES) + " | all |")
    print("| --- |" + " ---: |" * (len(DAMAGES) + 1))
    for name in formats:
        cells = [f"{noticed[name, damage]}/{totals[name, damage]}" for damage in DAMAGES]
        of, total = sum(noticed[name, d] for d in DAMAGES), sum(totals[name, d] for d in DAMAGES)
        print(f"| {name} | " + " | ".join(cells) + f" | {of / max(total, 1):.1%} |")
    print(f"all: {noticed.total()} of {totals.total()} noticed, {noticed.total() / totals.total():.2%}")


def _print_sound(paths: list[Path], decoder: IsolatedDecoder) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    for path in paths:
        if not path.is_file():
            continue
        found = decoded(decoder, path.read_bytes())
        kind = "ok" if not isinstance(found, ImageError) else found.error_type
        outcomes["not an image" if isinstance(found, NotAnImage) else kind] += 1
        if isinstance(found, ImageError) and found.error_type in ("Corrupt", "Truncated"):
            print(f"refused: {path}: {found.error_type}: {found.message}")
    print("sound files:", dict(outcomes))


if __name__ == "__main__":
    main()
