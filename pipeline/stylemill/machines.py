"""How much of something fits a cluster: what one worker needs must fit one machine, not their sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MACHINES_COUNTED = 10_000
"""An autoscaler's larger groups count as so many machines."""

Resources = Mapping[str, float]


def machines_of(nodes: Iterable[Mapping[str, Any]], groups: Iterable[Any] = ()) -> list[Resources]:
    """Return what each machine of a cluster has, those included that an autoscaler may add.

    Args:
        nodes: as ``ray.nodes()`` gives them.
        groups: the autoscaler's ``node_group_configs``, each with ``resources`` and ``max_count``; none without one.
    """
    living: list[Resources] = [node["Resources"] for node in nodes if node["Alive"]]
    possible: list[Resources] = []
    for group in groups:
        count = group.max_count if group.max_count >= 0 else MACHINES_COUNTED
        possible += [dict(group.resources)] * min(count, MACHINES_COUNTED)
    return max(living, possible, key=len)


def how_many_fit(machines: Sequence[Resources], need: Resources) -> int:
    """Return how many workers fit, each wholly on one machine.

    Args:
        machines: what each machine has: ``CPU``, ``GPU``, ``memory`` (bytes).
        need: what one worker reserves; zeros do not matter.
    """
    asked = {name: amount for name, amount in need.items() if amount > 0}
    return sum(min((int(has.get(name, 0) // amount) for name, amount in asked.items()), default=0) for has in machines)


def most_of(machines: Sequence[Resources], name: str) -> float:
    """Return the largest amount of a resource that one machine has."""
    return max((has.get(name, 0.0) for has in machines), default=0.0)


def total_of(machines: Sequence[Resources], name: str) -> float:
    """Return the amount of a resource that all machines have together."""
    return sum(has.get(name, 0.0) for has in machines)
