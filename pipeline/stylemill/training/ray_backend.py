"""The network that training workers talk over: the one by which Ray knows their machine.

Ray's notice that a node is about to be taken away, seen by all workers at the same step.

A node that is drained (``ray drain-node``, an autoscaler, a cloud's spot notice that one of them passes on) is reported
by Ray Train to every worker a few seconds later. Reading it is a barrier over all workers, so the first worker asks for
a look once a second and the request travels with the losses: a step costs nothing more.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import time
from typing import Any

import ray.train
import ray.util
from ray.train.torch import TorchConfig

from stylemill.ray_internals import TorchBackend

log = logging.getLogger(__name__)

_SIOCGIFADDR = 0x8915
"""Asks Linux for the IPv4 address of a network interface (netdevice(7))."""


class ClusterTorchConfig(TorchConfig):
    """Ray's set-up of torch's process group, over the network that Ray uses itself.

    Left to itself, Gloo takes the address that a machine's own name resolves to. On many machines that is 127.0.0.1,
    where the others do not find it.
    """

    @property
    def backend_cls(self) -> type[TorchBackend]:
        """What sets the process group up."""
        return _ClusterTorchBackend


class _ClusterTorchBackend(TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_cluster_network)
        super().on_start(worker_group, backend_config)


def use_cluster_network() -> None:
    """Make Gloo use the interface that has this machine's address in the cluster, unless the user chose one."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """Return the name of the network interface with this IPv4 address, or None."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no IPv4 address
                continue
        if socket.inet_ntoa(answer[20:24]) == address:
            return name
    return None


LOOK_PERIOD_S = 1.0


class PreemptionNotice:
    """Tells of each node once."""

    def __init__(self) -> None:
        self._last_look_s = time.monotonic()
        self._known: set[str] = set()

    @property
    def is_look_due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._last_look_s >= LOOK_PERIOD_S

    def look(self) -> bool:
        """Return whether Ray has announced one more node; every worker must call this at the same step."""
        self._last_look_s = time.monotonic()
        found = ray.train.get_preemption_info()
        new = set(found.preempted_node_ids) - self._known if found is not None else set()
        self._known |= new
        if new:
            log.warning("Ray takes nodes away: %s", found)
        return bool(new)
