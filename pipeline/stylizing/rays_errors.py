"""What Ray Data raises: the error of this project inside it, and the actors that it keeps alive."""

from __future__ import annotations

import gc
import traceback
from types import FrameType

import ray.exceptions

from pipeline.errors import ClusterError, StylemillError, own_cause

_RAYS_ADVICE = "\nFailed to apply UDF transform after "
"""Begins what Ray Data appends to the messages of errors: how to make it retry them."""


def own_error(error: BaseException) -> BaseException:
    """Return this project's error inside one of Ray's, a ClusterError for Ray's own, or the error itself."""
    own = own_cause(error)
    if own is not None:
        return _without_rays_advice(own)
    if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        return ClusterError(
            f"{type(error).__name__}: {reason}; run the same command again to resume (STYLEMILL_LOG=DEBUG tells more)"
        )
    return error


def _without_rays_advice(error: StylemillError) -> StylemillError:
    """Return an error as it was raised; Ray Data appends to the first text among its arguments."""
    texts = (argument.partition(_RAYS_ADVICE)[0] if isinstance(argument, str) else argument for argument in error.args)
    return type(error)(*texts)


def let_go(error: BaseException) -> None:
    """Drop what still holds handles of a failed run's actors, and with them their CPUs.

    Ray Data leaves its actors to reference counting. Handles stay in its ended frames for as long as somebody keeps the
    error or a log record of it; and in cycles, which a process that waits would never collect.
    """
    errors, known = [error], {id(error)}
    while errors:
        error = errors.pop()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            _clear(frame)
        error.__traceback__ = None
        for earlier in (error.__cause__, error.__context__):
            if earlier is not None and id(earlier) not in known:
                known.add(id(earlier))
                errors.append(earlier)
    gc.collect()


def _clear(frame: FrameType | None) -> None:
    """Clear a frame and those that called it, up to the first that still runs."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:
            return
        frame = frame.f_back
