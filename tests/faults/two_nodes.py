"""A Ray cluster of two nodes on this machine, the second of which can be lost.

    python -m tests.faults.two_nodes

Prints its address. A line on stdin kills the second node's raylet (SIGKILL) and prints "killed"; the end of stdin ends
the cluster.
"""

from __future__ import annotations

import os
import signal
import sys

from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 150 * 2**20, "include_dashboard": False}


def main() -> None:
    """Serve until stdin ends."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(num_cpus=1, object_store_memory=150 * 2**20)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        (raylet,) = second.all_processes[PROCESS_TYPE_RAYLET]
        os.kill(raylet.process.pid, signal.SIGKILL)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
