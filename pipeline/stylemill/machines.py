"""How many workers fit a cluster: the resources of each worker must be free on one machine, not in the sum of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
