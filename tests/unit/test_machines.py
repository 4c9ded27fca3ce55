"""A worker must fit one machine; machines do not lend each other their processors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stylemill.machines import (
    MAX_MACHINES_PER_GROUP,
    IdleCores,
    how_many_fit,
    machines_of,
    max_per_machine,
    this_machine,
    total_of,
)

MACHINES = [{"CPU": 2.0, "memory": 8e9}, {"CPU": 3.0, "memory": 2e9}, {"CPU": 4.0, "memory": 8e9, "GPU": 1.0}, {}]


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        ({"CPU": 1}, 9),
        ({"CPU": 2}, 4),
        ({"CPU": 4}, 1),
        ({"CPU": 5}, 0),
        ({"CPU": 1, "memory": 4e9}, 4),
        ({"CPU": 1, "memory": 2e9}, 2 + 1 + 4),
        ({"CPU": 1, "GPU": 1}, 1),
        ({"CPU": 1, "GPU": 0}, 9),
        ({}, 0),
    ],
)
def test_how_many_fit(need: dict[str, float], expected: int):
    assert how_many_fit(MACHINES, need) == expected


def test_totals():
    assert [max_per_machine(MACHINES, name) for name in ("CPU", "TPU")] == [4.0, 0.0]
    assert total_of(MACHINES, "CPU") == 9.0
    assert (total_of([], "CPU"), max_per_machine([], "CPU")) == (0, 0)


def test_an_autoscaler_may_add_machines():
    nodes = [{"Alive": True, "Resources": {"CPU": 0.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    assert machines_of(nodes) == [{"CPU": 0.0}]
    groups = [SimpleNamespace(max_count=1, resources={"CPU": 0}), SimpleNamespace(max_count=3, resources={"CPU": 8})]
    assert how_many_fit(machines_of(nodes, groups), {"CPU": 4}) == 6
    assert len(machines_of(nodes, [SimpleNamespace(max_count=-1, resources={"CPU": 1})])) == MAX_MACHINES_PER_GROUP
    assert machines_of(nodes, [SimpleNamespace(max_count=0, resources={"CPU": 8})]) == [{"CPU": 0.0}]


MIB = 2**20
V2 = {
    "cpu.max": "100000 100000",
    "memory.max": f"{40 * MIB}",
    "memory.current": f"{30 * MIB}",
    "memory.stat": f"anon {15 * MIB}\nfile {15 * MIB}\ninactive_file {10 * MIB}\nactive_file {2 * MIB}\n",
}
V1 = {
    "cpu/cpu.cfs_quota_us": "50000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "memory/memory.limit_in_bytes": f"{40 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{30 * MIB}\n",
    "memory/memory.stat": f"inactive_file 1\nactive_file 1\ntotal_inactive_file {10 * MIB}\n"
    f"total_active_file {2 * MIB}\n",
}


def limits(tmp_path: Path, membership: str, files: Mapping[str, str]) -> dict[str, float]:
    """Return ``this_machine`` of a process in these cgroups."""
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "membership").write_text(membership)
    return this_machine(tmp_path / "cgroup", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        pytest.param("0::/\n", V2, id="v2, in a namespace of its own"),
        pytest.param("0::/kubepods/pod1\n", V2, id="v2, its own cgroup mounted as the uppermost"),
        pytest.param("0::/../other\n", V2, id="v2, beside what is mounted"),
        pytest.param(
            "0::/pod/main\n",
            {f"pod/{name}": text for name, text in V2.items()} | {"pod/main/cpu.max": "max 100000"},
            id="v2, limits of a cgroup above",
        ),
        pytest.param("5:memory:/docker/1\n4:cpuset:/\n2:cpu,cpuacct:/docker/1\n", V1, id="v1"),
        pytest.param(
            "5:memory:/\n2:cpu,cpuacct:/\n0::/\n",
            {name.replace("cpu/", "cpu,cpuacct/"): text for name, text in V1.items()},
            id="v1, a folder with the names of all controllers",
        ),
    ],
)
def test_limits_of_a_container_count(tmp_path: Path, membership: str, files: Mapping[str, str]):
    """Memory of the file cache is free: 40 MiB, of which 30 - 12 are used."""
    assert limits(tmp_path, membership, files) == {"CPU": 1, "memory": 22 * MIB}


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("", {}),
        ("nonsense\n", {"cpu.max": "nonsense", "memory.max": "nonsense"}),
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5"}),
        ("0::/\n", {"cpu.max": f"{10**9} 100000", "memory.max": f"{10**18}", "memory.current": "5"}),
        ("2:cpu:/\n5:memory:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
    ],
)
def test_without_limits_the_whole_machine_counts(tmp_path: Path, membership: str, files: Mapping[str, str]):
    found = limits(tmp_path, membership, files)
    assert found["CPU"] == len(os.sched_getaffinity(0))
    assert 0 < found["memory"] <= psutil.virtual_memory().total
    assert this_machine(tmp_path / "nothing", tmp_path / "nothing")["CPU"] == found["CPU"]


def test_a_full_container_has_nothing_free_and_a_started_cpu_counts(tmp_path: Path):
    files = {"cpu.max": "100001 100000", "memory.max": "100", "memory.current": "200"}
    assert limits(tmp_path, "0::/\n", files) == {"CPU": min(2, len(os.sched_getaffinity(0))), "memory": 0}


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylemill.machines.os.cpu_count", lambda: 4)


def idle_cores(*readings: tuple[float, float, float], reserved: int = 1, usable: int = 4) -> list[int]:
    """What ``IdleCores`` answers after each reading of wall time, all work and own work but the first."""
    left = iter(readings)
    cores = IdleCores(reserved, usable, lambda: next(left))
    return [cores() for _ in readings[1:]]


@pytest.mark.usefixtures("four_cpus")
def test_idle_cores_are_those_on_which_only_this_process_worked():
    assert idle_cores((0, 0, 0), (10, 10, 10)) == [4]
    assert idle_cores((0, 0, 0), (10, 30, 10)) == [2]
    assert idle_cores((0, 0, 0), (10, 40, 10)) == [1]
    assert idle_cores((0, 0, 0), (10, 13, 10)) == [4]  # what others do now and then is no core


@pytest.mark.usefixtures("four_cpus")
def test_own_threads_do_not_count_as_others_and_give_way_when_others_come():
    assert idle_cores((0, 0, 0), (10, 20, 10), (20, 60, 40), (30, 100, 60)) == [3, 3, 2]


@pytest.mark.usefixtures("four_cpus")
def test_reserved_threads_stay():
    assert idle_cores((0, 0, 0), (10, 40, 0), reserved=2) == [2]


@pytest.mark.usefixtures("four_cpus")
def test_where_the_process_may_not_use_all_cores_nothing_is_known_about_its_share():
    assert idle_cores((0, 0, 0), (10, 10, 10), usable=3) == [1]


@pytest.mark.usefixtures("four_cpus")
def test_what_ran_before_a_start_does_not_count():
    readings = iter([(0, 0, 0), (1000, 4000, 0), (1010, 4010, 10)])
    cores = IdleCores(1, 4, lambda: next(readings))
    cores.start()
    assert cores() == 4


@pytest.mark.usefixtures("four_cpus")
def test_a_short_while_says_nothing_new():
    assert idle_cores((0, 0, 0), (10, 30, 10), (10.1, 30.1, 10.1), (20.1, 40.1, 20.1)) == [2, 2, 4]


def test_the_work_of_this_process_is_measured():
    cores = IdleCores(1)
    deadline = time.monotonic() + 2 * IdleCores.MIN_PERIOD_S
    while time.monotonic() < deadline:
        sum(range(10_000))
    assert 1 <= cores() <= (os.cpu_count() or 1)
