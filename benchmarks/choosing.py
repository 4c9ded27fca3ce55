"""What settings do to styles: trains, measures and shows them, by the product's own commands.

    python benchmarks/choosing.py --style-image a.jpg --style-image b.jpg --content photos --held-out other-photos \\
        --out OUT "quick=--preset quick" "bold=--preset quick --style-weight 3"

Each trial is a name and flags of ``stylemill train``; every style image is trained with every trial, and painted and
measured on the held-out photographs by ``stylemill evaluate``. Prints a table and writes OUT/sheet.jpg, whose rows are
the trials of each style in order. Running the command again resumes: what is finished is not trained again.
"""

from __future__ import annotations

import argparse
import io
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from stylemill.report.pictures import styles_sheet

SHOWN = 6
COLUMNS = ("total_loss", "content_loss", "style_loss", "checkerboard", "diagonals", "rim", "halo", "blobs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="+", metavar="NAME=FLAGS", help="flags of stylemill train")
    parser.add_argument("--style-image", type=Path, action="append", required=True)
    parser.add_argument("--content", type=Path, required=True, help="folder of photographs to train on")
    parser.add_argument("--held-out", type=Path, required=True, help="folder of photographs to measure and show")
    parser.add_argument("--show", default="", help=f"names of the photographs shown; by default the first {SHOWN}")
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--evaluate", default="", metavar="FLAGS", help="flags of stylemill evaluate, as --yardstick")
    parser.add_argument("--hide-styles", action="store_true", help="leave the style images out of the sheet")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    trials = dict(trial.split("=", 1) for trial in options.trials)
    rows, shown = [], options.show.split(",") if options.show else []
    print("| style | trial | seconds of training | s per megapixel | " + " | ".join(COLUMNS) + " |")
    print("| --- | --- |" + " ---: |" * (2 + len(COLUMNS)), flush=True)
    for style in options.style_image:
        seconds = {name: _train(style, name, shlex.split(flags), options) for name, flags in trials.items()}
        found = _evaluate(style, list(trials), options)
        shown = shown or sorted(next(iter(found.values())))[:SHOWN]
        for name, pictures in found.items():
            means = [sum(row[column] or 0.0 for row in pictures.values()) / len(pictures) for column in COLUMNS]
            megapixels = sum(row["width_px"] * row["height_px"] for row in pictures.values()) / 1e6
            cost_s = sum(row["seconds"] for row in pictures.values()) / megapixels
            print(f"| {style.stem} | {name} | {seconds[name]:.0f} | {cost_s:.3f} |", end="")
            print("".join(f" {mean:.3f} |" for mean in means))
            paintings = [_path(pictures[key]["picture_uri"]).read_bytes() for key in shown]
            rows.append((style.read_bytes(), paintings))
        sys.stdout.flush()
        photos = [(options.held_out / key).read_bytes() for key in shown]
        (options.out / "sheet.jpg").write_bytes(_sheet(photos, rows, hide_styles=options.hide_styles))


def _sheet(photos: Sequence[bytes], rows: Sequence[tuple[bytes, Sequence[bytes]]], *, hide_styles: bool) -> bytes:
    sheet = styles_sheet(photos, rows)
    if not hide_styles:
        return sheet
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(sheet)) as image:
        left_px = image.width // (1 + len(photos)) + 1
        image.crop((left_px, 0, image.width, image.height)).save(buffer, format="JPEG", quality=88, optimize=True)
    return buffer.getvalue()


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _out(style: Path, options: argparse.Namespace) -> Path:
    return options.out / style.stem


def _run(arguments: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        subprocess.run([sys.executable, "-m", "stylemill", *arguments], stdout=file, stderr=file, check=True)


def _train(style: Path, name: str, flags: Sequence[str], options: argparse.Namespace) -> float:
    """Train one trial unless it is finished; return the seconds that this run of it took."""
    out = _out(style, options) / name
    start_s = time.monotonic()
    base = ["train", "--style-image", str(style), "--content", str(options.content), "--out", str(out), "--name", name]
    _run([*base, *flags], _out(style, options) / f"{name}.log")
    return time.monotonic() - start_s


def _evaluate(style: Path, names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, dict]]:
    """Return the measurements of each trial by photograph."""
    out = _out(style, options) / "eval"
    models = [f"--model={_out(style, options) / name / 'style.safetensors'}#{name}" for name in names]
    arguments = [
        "evaluate",
        *models,
        "--content",
        str(options.held_out),
        "--out",
        str(out),
        "--style-image",
        str(style),
    ]
    flags = ["--num-images", "0", "--size-px", str(options.size_px), *shlex.split(options.evaluate)]
    _run([*arguments, *flags], _out(style, options) / "eval.log")
    found: dict[str, dict[str, dict]] = {name: {} for name in names}
    for row in pq.read_table(out / "evaluation.parquet").to_pylist():
        found[row["model"].rpartition("-")[0]][row["key"]] = row
    return found


if __name__ == "__main__":
    main()
