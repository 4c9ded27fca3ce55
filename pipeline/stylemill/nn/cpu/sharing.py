"""Shares prepared convolutions among the networks of a process that have the same weights: styles of one network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor

Prepared = TypeVar("Prepared")
_SHARED: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def shared(weights: Sequence[Tensor | None], key: Hashable, prepare: Callable[[], Prepared]) -> Prepared:
    """Return what ``prepare`` made of these weights before, or call it.

    Args:
        weights: float32 tensors on the CPU.
        key: everything else that the result depends on.
        prepare: makes the object, which is kept as long as anything uses it.
    """
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(repr(None if weight is None else tuple(weight.shape)).encode())
        if weight is not None:
            digest.update(weight.detach().contiguous().numpy().tobytes())
    whole_key = (digest.digest(), key)
    found: Prepared | None = _SHARED.get(whole_key)
    if found is None:
        found = _SHARED[whole_key] = prepare()
    return found
