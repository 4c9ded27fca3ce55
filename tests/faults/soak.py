"""Random kills at random times until the run is done, many times over.

    python -m tests.faults.soak [--seeds 30] [--first 0]

For each seed a run is started, and the driver, one actor, the raylet or everything is killed after a random
time; then the same command is started again, up to a few kills, and at last left alone. The outcome must be that of an
undisturbed run. A failing seed is printed and its folder kept.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.drawn import image_bytes, style_model
from tests.faults.outcome import outcome_of
from tests.processes import descendants, start_stylemill

MAX_KILLS = 4
NUM_IMAGES = 120
VICTIMS = ("driver", "actor", "raylet", "everything")


def make_library(folder: Path) -> Path:
    """Write small pictures and a few files that are none."""
    for number in range(NUM_IMAGES):
        path = folder / f"{number % 7}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(150 + number % 9, 200 - number % 11, number))
    (folder / "cut.jpg").write_bytes(image_bytes(90, 90, 99)[:400])
    (folder / "notes.txt").write_text("Rain on Sunday.\n")
    return folder


def kill(job: subprocess.Popen[str], victim: str, chance: random.Random) -> None:
    """SIGKILL the driver, an actor, the raylet, or everything."""
    below = descendants(job.pid)
    pids = {
        "driver": [job.pid],
        "actor": [pid for pid, command in below if "MapWorker" in command][:1],
        "raylet": [pid for pid, command in below if "raylet/raylet" in command][:1],
        "everything": [job.pid, *(pid for pid, _ in below)],
    }[victim]
    chance.shuffle(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if victim in ("driver", "everything"):
        job.wait()
        for pid, _ in below:  # the cluster of a dead driver ends by itself; do not wait for it
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def endure(seed: int, style: Path, source: Path, out: Path) -> str:
    """Run one seed to its end; return what was done to it."""
    chance, story = random.Random(seed), []
    for _ in range(chance.randint(1, MAX_KILLS)):
        job = start_stylemill("stylize", "--model", style, "--input", source, "--out", out)
        after_s, victim = chance.uniform(0.5, 25.0), chance.choice(VICTIMS)
        try:
            job.communicate(timeout=after_s)
            story.append("done")
            break
        except subprocess.TimeoutExpired:
            kill(job, victim, chance)
            story.append(f"{victim}@{after_s:.1f}s")
        if victim in ("actor", "raylet"):
            try:
                job.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                kill(job, "everything", chance)
    job = start_stylemill("stylize", "--model", style, "--input", source, "--out", out)
    said, _ = job.communicate(timeout=300)
    if job.returncode != 0:
        raise AssertionError(f"exit code {job.returncode}: {said[-2000:]}")
    return ", ".join(story)


def main() -> int:
    """Run the seeds; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    from stylemill.style_model import to_bytes

    folder = Path(tempfile.mkdtemp(prefix="stylemill-soak-"))
    style, source = folder / "style.safetensors", make_library(folder / "in")
    style.write_bytes(to_bytes(style_model()))
    job = start_stylemill("stylize", "--model", style, "--input", source, "--out", folder / "undisturbed")
    said, _ = job.communicate(timeout=300)
    assert job.returncode == 0, said
    expected, failed = outcome_of(str(folder / "undisturbed")), []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        out, start_s = folder / f"seed-{seed}", time.monotonic()
        try:
            story = endure(seed, style, source, out)
            assert outcome_of(str(out)) == expected, "the outcome differs from the undisturbed run's"
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed.append(seed)
            print(f"seed {seed} FAILED in {out}: {error}", flush=True)
            continue
        print(f"seed {seed}: {story}; sound after {time.monotonic() - start_s:.0f} s", flush=True)
    print(
        f"{arguments.seeds - len(failed)} of {arguments.seeds} seeds sound" + (f", failed: {failed}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
