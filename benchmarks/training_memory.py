"""Whether a training run's memory stays flat: the resident set of its worker, sampled while it trains.

    python benchmarks/training_memory.py --style-image STYLE --content PHOTOS --steps 1000 --crop-px 64 --width 0.25

Runs ``stylemill train`` as a user does (Ray, decoding threads, checkpoints, samples) with the flags given, and prints
the worker's resident set over the run, its growth by a straight line through the second half, and the peaks in
``metrics.parquet``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

PERIOD_S = 0.25
MIB = 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "stylemill", "train", "--out", f"{scratch}/out", *sys.argv[1:]]
        job = subprocess.Popen(command, text=True, start_new_session=True)
        sizes: list[int] = []
        worker = None
        while job.poll() is None:
            worker = worker or worker_of(job.pid)
            size = resident_bytes(worker) if worker else 0
            if size:
                sizes.append(size)
            time.sleep(PERIOD_S)
        if job.returncode or not sizes:  # nothing was trained, as with --help
            sys.exit(job.returncode)
        metrics = pq.read_table(f"{scratch}/out/metrics.parquet")
    report(np.array(sizes) / MIB, metrics.column("peak_memory_bytes").to_numpy() / MIB)


def report(resident: np.ndarray, peaks: np.ndarray) -> None:
    second_half = resident[len(resident) // 2 :]
    slope = np.polyfit(np.linspace(0, len(peaks) / 2, len(second_half)), second_half, 1)[0]
    tenths = [f"{np.median(part):.0f}" for part in np.array_split(resident, 10)]
    print(f"resident set over the worker's life, medians of tenths: {' '.join(tenths)} MiB")
    print(f"growth over the second half: {slope * 1000:+.1f} MiB per 1,000 steps")
    steps = [step for step in (1, 10, 100, len(peaks) // 2, len(peaks)) if step <= len(peaks)]
    print("peak by step: " + ", ".join(f"{step}: {peaks[step - 1]:.0f} MiB" for step in steps))


def worker_of(driver: int) -> int | None:
    """Return the worker process of the driver's cluster."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if b"RayTrainWorker" in (folder / "cmdline").read_bytes() and driver in ancestors(pid):
                return pid
        except OSError:
            continue
    return None


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def resident_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
