"""Large images through a real job: peak memory of the actor and of its decoder, and the forward pass used.

    python benchmarks/large_job.py --photo FILE [--megapixels 10 30 100] [--max-memory 5GiB] [--model URI] [--out DIR]

Every size is a separate job over one JPEG, with one actor, from file to file: the peaks therefore hold decoding, the
network and encoding. They are the resident sets' high-water marks (VmHWM) of the two processes that ever hold pixels,
as Linux keeps them; memory that both map (the decoded pixels, on their way) counts in both.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from bulk_vs_loop import random_model
from large import photo_of
from PIL import Image

from stylemill.cli.session import ray_session
from stylemill.manifest.read import read_manifest
from stylemill.painting.options import PaintOptions
from stylemill.process import periodically, process_tree
from stylemill.storage import Storage
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.run import stylize

NAMES = {"actor": "ray::MapWorker(MapBatches(BulkActor))", "decoder": "stylemill.images.isolation.child"}
PERIOD_S = 0.2


class Peaks:
    """The high-water marks of the actor and the decoder among this process's descendants."""

    def __init__(self) -> None:
        self.peak_mib = dict.fromkeys(NAMES, 0)

    def look(self) -> None:
        """Take in the marks as they are now."""
        for process in process_tree(os.getpid()):
            self._look(Path("/proc", str(process.pid)))

    def _look(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            role = next((role for role, name in NAMES.items() if name in command), None)
            if role is None:
                return
            found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        except OSError:  # it ended while it was looked at
            return
        if found:
            self.peak_mib[role] = max(self.peak_mib[role], int(found[1]) >> 10)


def one_job(model_uri: str, photo: str, megapixels: float, max_memory: str, folder: Path) -> str:
    """Paint one image of that size and return a line of the table."""
    library = folder / "library"
    library.mkdir(parents=True)
    image_HWC = photo_of(photo, megapixels)
    Image.fromarray(image_HWC).save(library / "large.jpg", quality=90)
    height_px, width_px = image_HWC.shape[:2]
    del image_HWC
    config = StylizeConfig(
        model=(model_uri,),
        input=str(library),
        out=str(folder / "out"),
        paint=PaintOptions(max_memory=max_memory),
        num_actors=1,
        runner="ray",
    )
    prepared = prepare(config)
    peaks = Peaks()
    with ray_session(), periodically(peaks.look, PERIOD_S):
        start_s = time.perf_counter()
        result = stylize(prepared)
        wall_s = time.perf_counter() - start_s
    (row,) = read_manifest(Storage(), result.layout).to_pylist()
    if row["status"] != "ok":
        return f"| {megapixels:g} | {row['error_type']}: {row['error']} |"
    seconds = [row[stage] / 1000 for stage in ("decode_ms", "stylize_ms", "encode_ms")]
    cells = [f"{megapixels:g} ({width_px} x {height_px})", row["forward"], *(f"{second:.1f}" for second in seconds)]
    cells += [f"{seconds[1] / megapixels:.2f}", str(peaks.peak_mib["actor"]), str(peaks.peak_mib["decoder"])]
    return "| " + " | ".join([*cells, f"{wall_s:.0f}"]) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", required=True)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[10, 30, 100])
    parser.add_argument("--max-memory", default="5GiB")
    parser.add_argument("--model", help="style model; by default random weights of width 1")
    parser.add_argument("--out", help="where to leave sources and results; by default a scratch folder")
    arguments = parser.parse_args()
    print("| megapixels | forward | decode s | network s | encode s | s/MP | actor MiB | decoder MiB | wall s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        model_uri = arguments.model or random_model(scratch)
        for megapixels in arguments.megapixels:
            folder = Path(arguments.out or scratch, f"{megapixels:g}")
            print(one_job(model_uri, arguments.photo, megapixels, arguments.max_memory, folder), flush=True)


if __name__ == "__main__":
    main()
