"""Everything of Ray that has no public interface: private names, and texts of its messages. Written for Ray 2.60.

``tests/unit/test_ray_internals.py`` checks each name and text against the installed Ray, so that an upgrade which
changes one fails there, and not in a user's run.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions
import requests
from ray.job_submission import JobSubmissionClient

from stylemill.errors import ClusterError, StylemillError
from stylemill.machines import Resources, machines_of

if TYPE_CHECKING:
    from ray.train.torch.config import _TorchBackend as TorchBackend

__all__ = [
    "DASHBOARD_LOGGERS",
    "START_SCRIPT",
    "DashboardClient",
    "TorchBackend",
    "cluster_machines",
    "has_start_timed_out",
    "is_token_missing",
    "ray_failure",
    "release_actors",
    "unwrap",
]

DASHBOARD_LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private")
"""Loggers on which Ray's job client repeats what it raises as well."""

_UDF_ADVICE = "\nFailed to apply UDF transform after "
"""Begins the advice on retries that Ray Data appends to the messages of errors."""
_START_TIMED_OUT = "timed out during startup"
_CLEANER = "PlacementGroupCleanerCallback"
_TOKEN_MISSING = "Authentication required"


def __getattr__(name: str) -> Any:
    """Return ``TorchBackend``, the class that sets up torch's process group; ``TorchConfig.backend_cls`` names one.

    Loaded when it is asked for: importing Ray Train takes three seconds, which other users of this file save.
    """
    if name != "TorchBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


# In an entrypoint, PATH often finds no `python` or another one than Ray's. The interpreter that
# runs Ray's workers is named in the command line of the machine's raylet, whose process id the parent of this shell
# (the job's supervisor, a worker) has in its environment.
START_SCRIPT = """\
raylet=$(tr '\\0' '\\n' <"/proc/$PPID/environ" | sed -n 's/^RAY_RAYLET_PID=//p') 2>/dev/null
python=$(tr '\\0' '\\n' <"/proc/$raylet/cmdline" | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p') 2>/dev/null
exec "${STYLEMILL_PYTHON:-${python:-python3}}" -m stylemill "$@"
"""
"""Shell script that runs the command line on the interpreter of Ray's workers."""


def cluster_machines() -> list[Resources]:
    """Return the resources of each machine of the connected cluster, with those that its autoscaler may add."""
    scaling = ray._private.state.state.get_cluster_config()
    return machines_of(ray.nodes(), scaling.node_group_configs if scaling else ())


def is_cluster_of_this_process() -> bool:
    """Return whether this process started the cluster that it is connected to, on this machine alone."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


class DashboardClient(JobSubmissionClient):
    """Ray's job client with a time limit for each request; Ray's own waits forever for a silent server."""

    TIMEOUT_S = 60.0

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, **{"timeout": self.TIMEOUT_S, **options})

    def get_json(self, endpoint: str) -> Any:
        """Return the JSON answer of one of the dashboard's endpoints, such as ``/api/version``."""
        return self._do_request("GET", endpoint).json()


def keep_interrupts(trainer: Any) -> None:
    """Let Ctrl-C raise KeyboardInterrupt while a trainer of Ray Train runs.

    Ray replaces the handler of SIGINT by one that waits for the controller and then ends the process with exit code 1
    and without a message; it stays installed after the training.
    """
    trainer._register_sigint_handler = lambda controller: None


def leave_out_blind_cleaner(trainer: Any) -> None:
    """Let a trainer of Ray Train do without the actor that cleans up after its controller, where that cannot work.

    The actor asks the dashboard whether the controller is alive. In a cluster without a dashboard it never learns that,
    waits ten seconds for each answer, and the end of every training waits for it.
    """
    from ray._private.worker import get_dashboard_url

    if get_dashboard_url():
        return
    create = trainer._create_default_callbacks
    trainer._create_default_callbacks = lambda: [
        callback for callback in create() if type(callback).__name__ != _CLEANER
    ]


def has_start_timed_out(error: Exception) -> bool:
    """Return whether ``ray.init`` gave up waiting for its own processes, as it does on a busy machine."""
    return _START_TIMED_OUT in str(error)


def is_token_missing(error: ray.exceptions.AuthenticationError) -> bool:
    """Return whether the cluster asked for a token where none was set, rather than refusing the one it got."""
    return _TOKEN_MISSING in str(error)


def unwrap(error: BaseException, *, doing: str) -> BaseException:
    """Return the error of this project that Ray wrapped, a ClusterError for a failure of Ray itself, or the error.

    Args:
        error: what Ray Data or Ray Train raised.
        doing: what was going on, for the ClusterError: ``training``.
    """
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for cause in (*failures.values(), error):
        own = _own_cause(cause)
        if own is not None:
            return _without_advice(own)
    if isinstance(error, ray.exceptions.RayTaskError):
        return error  # a defect of this project: its traceback is worth more than one line
    if failures or isinstance(error, ray.exceptions.RayError) or hasattr(error, "controller_failure"):
        return ray_failure(error, doing=doing)
    return error


def ray_failure(error: BaseException, *, doing: str) -> ClusterError:
    """Return a ClusterError of one line, with the reason, for an error that Ray raised."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    if failures:
        reason = " ".join(str(next(iter(failures.values()))).split())[-300:]
    elif _had_no_room(error):
        reason = "the cluster had no room for its workers, or was too busy to start them"
    else:
        reason = f"{type(error).__name__}: {_last_line(error)}"
    return ClusterError(
        f"{doing} stopped: {reason}; run the same command again to resume (STYLEMILL_LOG=DEBUG shows more)"
    )


def _had_no_room(error: BaseException) -> bool:
    """Return whether Ray Train gave up because its workers did not start in time."""
    failure = getattr(error, "controller_failure", None)
    if failure is None:
        return False
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(failure, WorkerGroupStartupTimeoutError)


def _own_cause(error: BaseException) -> StylemillError | None:
    """Return this project's error among an error and its causes; Ray keeps one in ``cause``."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None)
        if isinstance(inner, BaseException):  # wrapped by Ray, in an error of both classes
            seen = inner
        elif isinstance(seen, StylemillError):
            return seen
        else:
            seen = seen.__cause__
    return None


def _without_advice(error: StylemillError) -> StylemillError:
    """Return an error as it was raised; Ray Data appends its advice to the first text among the arguments."""
    texts = (argument.partition(_UDF_ADVICE)[0] if isinstance(argument, str) else argument for argument in error.args)
    return type(error)(*texts)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "no reason given"


def release_actors(error: BaseException) -> None:
    """Drop the references to actors that an error of Ray Data holds, so that the actors end and free their CPUs.

    Ray Data ends its actors by reference counting. Handles stay in the frames of the error for as long as somebody
    keeps it or a log record of it, and in cycles, which a process that waits never collects.
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
