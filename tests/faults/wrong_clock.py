"""stylemill with a driver whose wall clock is wrong: ``python -m tests.faults.wrong_clock SECONDS stylize ...``.

Replaces the clock where stylemill reads it: Python's own datetime cannot be replaced under C extensions, nor the C
library's under timed waits.
"""

from __future__ import annotations

import datetime
import sys
from types import SimpleNamespace

from stylemill.cli.main import main
from stylemill.storage import lease
from stylemill.stylizing import run, sample

if __name__ == "__main__":
    shift = datetime.timedelta(seconds=int(sys.argv[1]))
    wrong = SimpleNamespace(now=lambda zone: datetime.datetime.now(zone) + shift)
    for module in (lease, run, sample):
        module.datetime = wrong  # type: ignore[attr-defined]
    sys.exit(main(sys.argv[2:]))
