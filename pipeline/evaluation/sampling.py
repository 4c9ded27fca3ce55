"""Which images an experiment sees: drawn by seed, evenly over the strata of a library."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence


def stratum_of(key: str) -> str:
    """Return the stratum of an image: the first folder of its key, or ``""`` at the root."""
    folder, separator, _ = key.partition("/")
    return folder if separator else ""


def draw(keys: Sequence[str], num_images: int, *, seed: int) -> list[str]:
    """Return so many keys, from each stratum in proportion to its size, at least one from each if they suffice.

    Whether a key is drawn depends on the seed and the key: adding images to a library leaves most of a sample in place.

    Args:
        keys: all keys, distinct.
        num_images: how many to draw; 0, or more than there are, takes all.
        seed: of the draw.

    Returns:
        The drawn keys in order.
    """
    if not num_images or num_images >= len(keys):
        return sorted(keys)
    strata: dict[str, list[str]] = defaultdict(list)
    for key in sorted(keys, key=lambda key: _rank(key, seed)):
        strata[stratum_of(key)].append(key)
    shares = _shares({name: len(members) for name, members in strata.items()}, num_images)
    return sorted(key for name, members in strata.items() for key in members[: shares[name]])


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def _shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Return images per stratum by the largest remainder, after one for each of the largest strata.

    Source: Hamilton's method of apportionment.
    """
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    shares = {name: int(rank < wanted) for rank, name in enumerate(by_size)}
    total, rest = sum(sizes.values()), wanted - sum(shares.values())
    if rest:
        quotas = {name: wanted * size / total for name, size in sizes.items()}
        while rest:
            open_strata = [name for name in by_size if shares[name] < sizes[name]]
            neediest = max(open_strata, key=lambda name: quotas[name] - shares[name])
            shares[neediest] += 1
            rest -= 1
    return shares
