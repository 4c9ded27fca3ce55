"""How many workers fit a cluster: the resources of each worker must be free on one machine, not in the sum of all.

``this_machine`` knows the limits of the container that this process runs in; the kernel's files of a cgroup state them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

MAX_MACHINES_PER_GROUP = 10_000
"""Larger or unbounded groups of an autoscaler are counted as this many machines."""

Resources = Mapping[str, float]
"""Amounts by name: ``CPU``, ``GPU``, ``memory`` (bytes)."""


def machines_of(nodes: Iterable[Mapping[str, Any]], groups: Iterable[Any] = ()) -> list[Resources]:
    """Return the resources of each machine of a cluster, including those that an autoscaler may add.

    Args:
        nodes: as ``ray.nodes()`` returns them.
        groups: the autoscaler's ``node_group_configs``, each with ``resources`` and ``max_count``.
    """
    living: list[Resources] = [node["Resources"] for node in nodes if node["Alive"]]
    possible: list[Resources] = []
    for group in groups:
        count = group.max_count if group.max_count >= 0 else MAX_MACHINES_PER_GROUP
        possible += [dict(group.resources)] * min(count, MAX_MACHINES_PER_GROUP)
    return max(living, possible, key=len)


def how_many_fit(machines: Sequence[Resources], need: Resources) -> int:
    """Return how many workers fit, each on one machine.

    Args:
        machines: resources of each machine.
        need: resources that one worker reserves; zeros are ignored.
    """
    required = {name: amount for name, amount in need.items() if amount > 0}
    return sum(
        min((int(has.get(name, 0) // amount) for name, amount in required.items()), default=0) for has in machines
    )


def max_per_machine(machines: Sequence[Resources], name: str) -> float:
    """Return the largest amount of a resource that one machine has."""
    return max((has.get(name, 0.0) for has in machines), default=0.0)


def total_of(machines: Sequence[Resources], name: str) -> float:
    """Return the sum of a resource over all machines."""
    return sum(has.get(name, 0.0) for has in machines)


def this_machine(
    cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> dict[str, float]:
    """Return the CPUs that this process may use, and the memory in bytes that is free for it.

    Args:
        cgroups: where the cgroups are mounted, of version 2 or 1.
        membership: names the cgroups of this process.
    Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst of the kernel.
    """
    cpus, free_bytes = float(_num_cpus()), float(psutil.virtual_memory().available)
    for folder in _folders(cgroups, membership, "cpu"):
        cpus = min(cpus, max(1, _cpu_limit(folder)))
    for folder in _folders(cgroups, membership, "memory"):
        free_bytes = min(free_bytes, max(0, _free_bytes(folder)))
    return {"CPU": cpus, "memory": free_bytes}


_NO_LIMIT = float("inf")


def _num_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_limit(folder: Path) -> float:
    """Return the CPUs of a cgroup, a started one included."""
    quota, period = [*_words(folder / "cpu.max"), "max", ""][:2]  # version 2
    if quota == "max":  # no limit, or version 1
        quota = next(_words(folder / "cpu.cfs_quota_us"), "-1")
        period = next(_words(folder / "cpu.cfs_period_us"), "")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return _NO_LIMIT
    return -(-int(quota) // int(period))


def _free_bytes(folder: Path) -> float:
    """Return what a cgroup's processes may still use: its file cache gives way to them."""
    limit = next(_words(folder / "memory.max", folder / "memory.limit_in_bytes"), "max")
    used = next(_words(folder / "memory.current", folder / "memory.usage_in_bytes"), "")
    if not (limit.isdecimal() and used.isdecimal()):
        return _NO_LIMIT
    words = [*_words(folder / "memory.stat")]
    figures = dict(zip(words[::2], words[1::2], strict=False))
    # Version 1 has two kinds of figures; ``total_`` are those that include the groups below, as the usage does.
    prefix = "total_" if "total_inactive_file" in figures else ""
    cache = sum(int(figures.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return int(limit) - max(0, int(used) - cache)


def _folders(cgroups: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups that limit this process: its own and those above it.

    Some may be missing: a container sees its own cgroup as the uppermost one, whatever name the machine gives it.
    """
    for line in _lines(membership):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups
        if controllers:  # version 1, whose folder may have the name of one or of all of its controllers
            root = next((cgroups / name for name in (controller, controllers) if (cgroups / name).is_dir()), cgroups)
        own = PurePosixPath(path.lstrip("/"))
        if ".." in own.parts:  # it is not below the uppermost one that is seen here
            own = PurePosixPath()
        for level in (own, *own.parents):
            yield root / level


def _words(*files: Path) -> Iterator[str]:
    """Yield the words of files; those that are missing have none."""
    for file in files:
        for line in _lines(file):
            yield from line.split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


class IdleCores:
    """How many threads this process can use at the moment without taking time from others.

    Only where the process may use all of the machine's cores: in a container that may not, the figures of the kernel
    are those of the machine, and say little about its share. Then the answer is what is reserved.

    Args:
        reserved: threads that it may use in any case.
        usable: CPUs that it may use; None asks ``this_machine``.
        read: returns the seconds of wall time, of all CPUs' work, and of this process's; for tests.
    """

    MIN_PERIOD_S = 0.5
    """Shorter periods say little, because the system counts time in ticks."""

    def __init__(
        self, reserved: int, usable: int | None = None, read: Callable[[], tuple[float, float, float]] | None = None
    ) -> None:
        self._reserved, self._read = reserved, read or _worked_s
        self._num_cpus = os.cpu_count() or 1
        self._shares = (int(this_machine()["CPU"]) if usable is None else usable) < self._num_cpus
        self.start()

    def start(self) -> None:
        """Forget what ran before."""
        self._threads, self._last = self._reserved, self._read()

    def __call__(self) -> int:
        """Return the number of threads, by what ran since the last call, or since ``start``."""
        now = self._read()
        wall_s, all_s, own_s = (new - old for new, old in zip(now, self._last, strict=True))
        if not self._shares and wall_s >= self.MIN_PERIOD_S:
            others = max(0.0, all_s - own_s) / wall_s
            # A third of a core is what other processes use besides.
            self._threads = max(self._reserved, int(self._num_cpus - others + 1 / 3))
            self._last = now
        return self._threads


def _worked_s() -> tuple[float, float, float]:
    cpus, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # Guests' time is part of the user's.
    idle = ("idle", "iowait", "guest", "guest_nice")
    worked_s = sum(value for name, value in cpus._asdict().items() if name not in idle)
    return time.monotonic(), worked_s, own.user + own.system
