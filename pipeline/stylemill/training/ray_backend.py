"""How training workers reach each other, and how they learn that a node will be removed.

Network: Gloo uses the address that a machine's own name resolves to. On many machines that is 127.0.0.1, which the
other machines cannot reach. ``ClusterTorchConfig`` makes it use the interface of the address that Ray uses.

Node removals: Ray Train reports a draining node (``ray drain-node``, an autoscaler, or a spot notice that one of them
forwards) to every worker within a few seconds. Reading the report is a barrier over all workers, so it must happen
at the same step everywhere. The first worker requests the check once a second, and the request is sent along with the
losses at no extra cost.
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

CHECK_PERIOD_S = 1.0
_SIOCGIFADDR = 0x8915
"""The ioctl for the IPv4 address of a network interface on Linux (netdevice(7))."""


class ClusterTorchConfig(TorchConfig):
    """Ray's set-up of torch's process group, over the network that Ray itself uses."""

    @property
    def backend_cls(self) -> type[TorchBackend]:
        """The class that sets up the process group."""
        return _ClusterTorchBackend


class _ClusterTorchBackend(TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_cluster_network)
        super().on_start(worker_group, backend_config)


def use_cluster_network() -> None:
    """Make Gloo use the interface with this machine's address in the cluster, unless the user chose one."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """Return the name of the network interface with this IPv4 address, or None."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # the interface has no IPv4 address
                continue
        if socket.inet_ntoa(answer[20:24]) == address:
            return name
    return None


class PreemptionNotice:
    """Checks whether Ray has announced the removal of a node; reports each node once."""

    def __init__(self) -> None:
        self._last_check_s = time.monotonic()
        self._known: set[str] = set()

    @property
    def is_check_due(self) -> bool:
        """Whether it is time to check again."""
        return time.monotonic() - self._last_check_s >= CHECK_PERIOD_S

    def check(self) -> bool:
        """Return whether Ray has announced another node; every worker must call this at the same step."""
        self._last_check_s = time.monotonic()
        found = ray.train.get_preemption_info()
        new = set(found.preempted_node_ids) - self._known if found is not None else set()
        self._known |= new
        if new:
            log.warning("Ray announced the removal of nodes: %s", found)
        return bool(new)
