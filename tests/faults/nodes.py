"""A Ray cluster of a head without CPUs and two nodes of one CPU each, as a process that takes orders.

    python -m tests.faults.nodes

Prints the cluster's address, then reads orders from standard input, one a line, and answers each with a line:

    kill PID          the node on which process PID runs dies at once, with everything on it
    drain PID S       Ray announces that the node on which process PID runs goes away in S seconds
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Ray reads these when it is imported: a dead node is noticed after three seconds instead of thirty.
os.environ |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}

import ray
from ray.cluster_utils import Cluster


class Nodes:
    """Starts the cluster and carries out orders."""

    def __init__(self) -> None:
        small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        self._nodes = [self._cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        self.address = self._cluster.address

    def kill(self, pid: str) -> str:
        """Kill the node on which a process runs."""
        node = self._node_of(int(pid))
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        return "killed"

    def drain(self, pid: str, seconds: str) -> str:
        """Announce the end of the node on which a process runs, as an autoscaler does for a spot machine."""
        command = [Path(sys.executable).with_name("ray"), "drain-node", "--address", self.address]
        command += ["--node-id", self._node_of(int(pid)).node_id, "--deadline-remaining-seconds", seconds]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "announced" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())

    def _node_of(self, pid: int) -> ray._private.node.Node:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return next(node for node in self._nodes if node.all_processes["raylet"][0].process.pid == parent)


def main() -> None:
    """Serve until standard input ends."""
    nodes = Nodes()
    print(nodes.address, flush=True)
    for line in sys.stdin:
        order, *arguments = line.split()
        print(getattr(nodes, order)(*arguments), flush=True)


if __name__ == "__main__":
    main()
