"""``stylemill-job <verb> ...``: a verb for schedulers that know success and failure only, such as KubeRay's RayJob.

They would repeat a job that left with 3 (done, but too many sources failed), on a new cluster, for nothing: its run is
committed. So 3 becomes 0 and one line on stderr that begins with ``ALERT``, for whoever watches the logs; the metric
``ray_stylemill_images_total`` and the run's page tell the same. All other codes stay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.cli import DONE, TOO_MANY_FAILED, main

ALERT = "ALERT"


def main_for_scheduler(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return its exit code, or 0 and an alert where that is 3."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = main(arguments)
    if code != TOO_MANY_FAILED:
        return code
    verb = " ".join(arguments[:1])
    print(
        f"{ALERT} stylemill {verb}: done, but more than max_failed_fraction of the sources failed (exit code 3, told "
        "to the scheduler as 0: doing it again changes nothing); see the run's page or `stylemill manifest summary`",
        file=sys.stderr,
        flush=True,
    )
    return DONE

