"""A worker must fit one machine; machines do not lend each other their processors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stylemill.machines import MAX_MACHINES_PER_GROUP, how_many_fit, machines_of, max_per_machine, total_of

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
