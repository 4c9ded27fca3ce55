"""A worker process of ``local_workers``: does block after block as the driver sends them, with a ``BulkActor``.

It ends at once when the driver does, also when the driver is killed: the kernel kills it (Linux), and a thread that
waits for the next block sees the socket close (everywhere).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from stylemill.stylizing.local_link import DONE, FAILED, Failure, LinkTracker

_PR_SET_PDEATHSIG = 1


def main(fd: int, parent_pid: int) -> None:
    """Serve the driver at the other end of a socket until it closes.

    Args:
        fd: file descriptor of this end.
        parent_pid: the driver.
    """
    _end_with(parent_pid)
    os.set_inheritable(fd, False)  # the decoding process must not hold the socket open
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    warnings.simplefilter("ignore")  # Pillow's, about pictures that are painted anyway
    connection = Connection(fd)
    # Takes seconds. It precedes the thread, whose unpickling imports too, and the job, which the driver is preparing.
    from stylemill.stylizing.fused_actor import BulkActor

    received: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), name="receive", daemon=True).start()
    tracker = LinkTracker(connection)
    try:
        work = BulkActor(received.get(), tracker)
        while True:
            work(tracker.take(received.get()))
            tracker.send(DONE)
    except Exception as error:
        tracker.send(FAILED, Failure.of(error))
        raise


def _receive(connection: Connection, received: SimpleQueue[Any]) -> None:
    """Put what the driver sends into a queue; end this process when the driver is gone."""
    while True:
        try:
            received.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _end_with(parent_pid: int) -> None:
    """End this process when the thread of the driver that started it ends (Linux), whatever this process is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
