"""Random accidents at random times until everything is done, many times over.

    python -m tests.faults.soak [--seeds 30] [--first 0]

Each seed has one output. Its main run is started, and the driver, one actor, the raylet or everything is killed after a
random time; then the same command is started again, up to a few kills, and at last left alone. In between, other runs
write the same output: the same library with other settings, another library with the same keys, an incremental run
after a source was changed. Some end, some are killed and never started again. ``manifest gc --delete`` runs beside
them, and the clock of each driver is right, an hour slow or an hour fast.

In the end the main run's outcome must be that of an undisturbed run, and every ``ok`` row of every committed run must
have its object: a row without is *false*. A failing seed is printed and its folder kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from stylemill.auditing.verify import verify
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import committed_runs, read_manifest
from stylemill.storage import Storage, StorageOptions
from tests.drawn import image_bytes, style_model
from tests.faults.outcome import Outcome, outcome_of, rows_outcome
from tests.processes import Job, descendants, start_stylemill

MAX_ACTS = 4
NUM_IMAGES = 120
VICTIMS = ("driver", "actor", "raylet", "everything")
ACTS = ("main", "main", "main", "other settings", "other library", "gc")
CLOCKS_S = (0, -3600, 3600)
MAIN_RUN = "main"


def make_library(folder: Path, seed: int = 0) -> Path:
    """Write small pictures and a few files that are none."""
    for number in range(NUM_IMAGES):
        path = folder / f"{number % 7}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(150 + number % 9, 200 - number % 11, number + seed))
    (folder / "cut.jpg").write_bytes(image_bytes(90, 90, 99)[:400])
    (folder / "notes.txt").write_text("Rain on Sunday.\n")
    return folder


def kill(job: Job, victim: str, chance: random.Random) -> None:
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


@dataclass
class World:
    """The output of one seed and what is done to it.

    Args:
        seed: decides everything.
        style: of all runs.
        library: of the main run; a copy, because a source is changed at the end.
        other: a library with the same keys.
        out: the output.
    """

    seed: int
    style: Path
    library: Path
    other: Path
    out: Path
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def start(self, verb: str, *arguments: object) -> Job:
        """Start a command whose clock may be wrong."""
        shift_s = self.chance.choice(CLOCKS_S)
        self.story.append(f"{shift_s // 3600:+d}h" if shift_s else "")
        return start_stylemill(shift_s, *verb.split(), *arguments, module="tests.faults.wrong_clock")

    def stylize(self, source: Path, *more: object) -> Job:
        """Start a run over a library."""
        return self.start(
            "stylize", "--model", self.style, "--input", source, "--out", self.out, "--runner", "ray", *more
        )

    def act(self) -> None:
        """Do one thing to the output."""
        act = self.chance.choice(ACTS)
        if act == "main":
            self.disturb(act, self.stylize(self.library, "--run-id", MAIN_RUN), kill_always=True)
        elif act == "other settings":
            self.disturb(act, self.stylize(self.library, "--quality", self.chance.choice((40, 60))))
        elif act == "other library":
            self.disturb(act, self.stylize(self.other))
        else:
            self.clean(self.chance.choice(CLOCKS_S))

    def disturb(self, act: str, job: Job, *, kill_always: bool = False) -> None:
        """Let a run end or kill it after a random time, with ``gc`` beside it now and then."""
        shift_s = self.chance.choice(CLOCKS_S)
        helper = threading.Thread(target=self.clean, args=(shift_s,)) if self.chance.random() < 0.3 else None
        if helper:
            helper.start()
        is_killed = kill_always or self.chance.random() < 0.6
        try:
            said, _ = job.communicate(timeout=self.chance.uniform(0.5, 25.0) if is_killed else 300)
            self.story.append(f"{act} ended with {job.returncode}")
            if job.returncode not in (0, 1) or "Traceback" in said:  # 1: the output was being cleaned
                raise AssertionError(f"{act} ended with {job.returncode}: {said[-2000:]}")
        except subprocess.TimeoutExpired:
            victim = self.chance.choice(VICTIMS)
            kill(job, victim, self.chance)
            self.story.append(f"{act}: {victim} killed")
            if victim in ("actor", "raylet"):
                try:
                    job.communicate(timeout=120)
                except subprocess.TimeoutExpired:
                    kill(job, "everything", self.chance)
        if helper:
            helper.join()

    def clean(self, shift_s: int) -> None:
        """Run ``manifest gc --delete``; it may refuse (2) or find the output taken (1)."""
        job = start_stylemill(shift_s, "manifest", "gc", self.out, "--delete", module="tests.faults.wrong_clock")
        said, _ = job.communicate(timeout=120)
        self.story.append(f"gc {job.returncode}")
        if job.returncode not in (0, 1, 2) or "Traceback" in said:
            raise AssertionError(f"gc ended with {job.returncode}: {said[-2000:]}")

    def finish(self) -> None:
        """Let the main run end; then change a source and paint it incrementally, with or without a kill."""
        self._end(self.stylize(self.library, "--run-id", MAIN_RUN))
        if self.chance.random() < 0.5:
            changed = self.library / "3" / "003.jpg"
            changed.write_bytes(image_bytes(150, 190, 1000 + self.seed))
            self.disturb("incremental", self.stylize(self.library, "--incremental"))
            if self.chance.random() < 0.5:
                self._end(self.stylize(self.library, "--incremental"))

    def _end(self, job: Job) -> None:
        try:
            said, _ = job.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            kill(job, "everything", self.chance)
            raise AssertionError("a run did not end within 300 s") from None
        if job.returncode != 0:
            raise AssertionError(f"exit code {job.returncode}: {said[-2000:]}")

    def check(self, expected: Outcome) -> int:
        """Compare with the undisturbed run, and look for false rows; return the number of rows looked at."""
        storage, out, num_rows = Storage(), str(self.out), 0
        for run_id in committed_runs(storage, out):
            layout = RunLayout(out=out, run_id=run_id)
            rows = read_manifest(storage, layout).to_pylist()
            for row in rows:
                num_rows += 1
                if row["status"] == "ok":
                    data = storage.read_bytes(row["output_uri"])
                    assert hashlib.sha256(data).hexdigest() == row["output_sha256"], (
                        f"a false row: {run_id} {row['key']}"
                    )
            found = verify(StorageOptions(), layout)
            problems = [problem for problem in found.problems if problem.kind != "UnknownObject"]
            assert not problems, problems
            if run_id == MAIN_RUN:
                assert rows_outcome(rows) == expected, "the outcome differs from the undisturbed run's"
        return num_rows


def endure(world: World, expected: Outcome) -> int:
    """Run one seed to its end; return the number of rows that were checked."""
    for _ in range(world.chance.randint(1, MAX_ACTS)):
        world.act()
    world.finish()
    return world.check(expected)


def main() -> int:
    """Run the seeds; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    from stylemill.style_model import to_bytes

    folder = Path(tempfile.mkdtemp(prefix="stylemill-soak-"))
    style, source, other = (
        folder / "style.safetensors",
        make_library(folder / "in"),
        make_library(folder / "other", 500),
    )
    style.write_bytes(to_bytes(style_model()))
    job = start_stylemill(
        "stylize", "--model", style, "--input", source, "--out", folder / "undisturbed", "--runner", "ray"
    )
    said, _ = job.communicate(timeout=300)
    assert job.returncode == 0, said
    expected, failed = outcome_of(str(folder / "undisturbed")), []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        out, library, start_s = folder / f"seed-{seed}", folder / f"in-{seed}", time.monotonic()
        shutil.copytree(source, library)
        world = World(seed, style, library, other, out)
        try:
            num_rows = endure(world, expected)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed.append(seed)
            print(f"seed {seed} FAILED in {out}: {error}", flush=True)
            continue
        finally:
            story = ", ".join(part for part in world.story if part)
            print(f"seed {seed}: {story}; {time.monotonic() - start_s:.0f} s", flush=True)
        print(
            f"seed {seed}: {num_rows} rows of {len(committed_runs(Storage(), str(out)))} runs, none false", flush=True
        )
        shutil.rmtree(out)
    sound = arguments.seeds - len(failed)
    print(f"{sound} of {arguments.seeds} seeds sound" + (f", failed: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
