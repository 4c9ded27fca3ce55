"""How much of something fits a cluster: what one worker needs must fit one machine, not their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Resources = Mapping[str, float]


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
