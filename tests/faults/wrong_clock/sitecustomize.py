"""On the path of a process, this makes Python's wall clock wrong by ``SHIFT_CLOCK_S`` seconds.

Only Python's: a library that replaces the C library's clock breaks timed waits, which the kernel ends by the right one.
"""

from __future__ import annotations

import datetime
import os
import time

_SHIFT_S = float(os.environ.get("SHIFT_CLOCK_S", "0"))
_right_time, _RightDatetime = time.time, datetime.datetime


class _WrongDatetime(_RightDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return _RightDatetime.now(tz) + datetime.timedelta(seconds=_SHIFT_S)


if _SHIFT_S:
    time.time = lambda: _right_time() + _SHIFT_S
    datetime.datetime = _WrongDatetime  # type: ignore[misc]
