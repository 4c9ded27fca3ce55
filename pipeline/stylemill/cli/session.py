"""Set-up around a verb: SIGTERM ends it cleanly, and a Ray session is open while it runs.

``jobs stop``, ending pods and preempted machines send SIGTERM. ``ray_session`` connects to the cluster that this
process is a job of, or starts one on this machine.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stylemill.errors import ClusterError, ConfigError

log = logging.getLogger(__name__)

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, the same as a shell's."""
OBJECT_STORE_BYTES = 512 * 2**20
MAX_STARTS = 3
"""Ray waits 30 seconds for its processes to start; a busy machine may need several attempts."""


@contextmanager
def unwinding_on_sigterm() -> Iterator[threading.Event]:
    """While the body runs, let SIGTERM raise KeyboardInterrupt in the main thread, so that leases are released.

    It is KeyboardInterrupt because Ray's blocking calls let that one through. Signals after the first are ignored.

    Yields:
        An event that is set if a KeyboardInterrupt comes from SIGTERM.
    """
    received = threading.Event()

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        received.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python runs signal handlers only in the main thread
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM after the body, which may replace it: ``ray.init`` does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def is_connected() -> bool:
    """Return whether this process is connected to Ray, without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray while the block runs.

    Inside a Ray job (``RAY_ADDRESS`` is set) this is the job's cluster. Otherwise a new cluster is started on this
    machine; its workers inherit this process's environment, and so its storage credentials.

    Args:
        num_cpus: CPUs of a new cluster; by default all of the machine's.

    Raises:
        ConfigError: ``RAY_ADDRESS`` is a dashboard's URL.
        ClusterError: the cluster at ``RAY_ADDRESS`` cannot be joined.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        cure = "put `submit` before the command to run it there, or unset the variable to run it here"
        raise ConfigError("RAY_ADDRESS", address, "is the URL of a dashboard, to which no driver can connect", cure)
    # Ray reads these when it is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.data")}
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray
    from ray.data import DataContext

    from stylemill.process import attributes

    with _quiet_stderr(), keeping_sigterm():
        if address:
            try:
                ray.init(logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ClusterError(
                    f"the Ray cluster at RAY_ADDRESS={address} cannot be joined ({reason}); check address, token and "
                    "versions, or unset the variable to run on this machine alone"
                ) from error
        else:
            _start_here(num_cpus)
            _tighten_token()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error that ends a run is raised, and printed once
    try:
        with attributes(DataContext.get_current(), enable_progress_bars=False, print_on_execution_start=False):
            yield
    finally:
        ray.shutdown()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start_here(num_cpus: int | None) -> None:
    """Start a cluster on this machine; try again if Ray gave up waiting for its processes."""
    import ray

    for _ in range(MAX_STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
            return
        except Exception as error:  # Ray raises a plain Exception
            from stylemill.ray_internals import has_start_timed_out

            if not has_start_timed_out(error):
                raise
            log.info("Ray's processes did not start in time; starting them again")
            ray.shutdown()
    raise ClusterError(
        f"Ray did not start on this machine within 30 s, {MAX_STARTS} times; "
        "run the same command again when it is less busy"
    )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Discard what Ray's native code writes to stderr while it starts; errors there are raised as well."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("w") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _tighten_token() -> None:
    """Make Ray's authentication token readable only by its owner; Ray writes it with mode 0644."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():
        token.chmod(0o600)
