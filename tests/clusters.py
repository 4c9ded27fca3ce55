"""Ray clusters of several machines, each a ``ray start`` process with folders of its own.

With root rights and Linux namespaces a machine has its own name, network, process table, shared memory and
folders: it sees neither the files of the other machines nor this checkout. Killing it kills all of its processes at
once, as a power cut does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import ROOT

START_PATIENCE_S = 300.0
"""Not a measurement: how long a machine may take to appear before the test gives up."""


def can_isolate() -> bool:
    """Tell whether this process may make namespaces, bridges and mounts."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return False
    name = f"smtry{os.getpid()}"[:15]
    tries = (["ip", "link", "add", name, "type", "bridge"], ["ip", "link", "del", name])
    mount = ["unshare", "--fork", "--pid", "--mount", "--uts", "--mount-proc", "mount", "-t", "tmpfs", "none", "/mnt"]
    return all(not subprocess.run(command, capture_output=True, check=False).returncode for command in (*tries, mount))


class Cluster:
    """A head and workers.

    Args:
        folder: a short path of its own; sockets live below it.
        isolated: give every machine namespaces of its own.
        machine_environment: what every machine has in its environment: its storage credentials, say.
    """

    def __init__(self, folder: Path, *, isolated: bool, machine_environment: dict[str, str] | None = None) -> None:
        self.folder, self.isolated = folder, isolated
        self.machine_environment = dict(machine_environment or {})
        self.token = secrets.token_hex(16)
        self._network = _Network() if isolated else None
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._boots: dict[str, Callable[[], None]] = {}
        self._num_started = 0
        self._port, self._dashboard_port = free_port(), free_port()
        host = self._network.address(10) if self._network else "127.0.0.1"
        self.address = f"http://{host}:{self._dashboard_port}"
        self._gcs_address = f"{host}:{self._port}"
        (folder / "token").write_text(self.token)
        (folder / "token").chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        """What a client needs to know."""

    @property
    def host_address(self) -> str:
        """This test's address, as the machines see it."""
        return self._network.address(1) if self._network else "127.0.0.1"

    def start_head(self, num_cpus: int = 0) -> None:
        """Start the first machine and wait for its dashboard."""
        words = ["--head", f"--port={self._port}", f"--dashboard-port={self._dashboard_port}"]
        words += [f"--ray-client-server-port={free_port()}"]
        self._start(
            "head", [*words, "--dashboard-host=0.0.0.0", f"--temp-dir={self.folder / 'head' / 'ray'}"], num_cpus
        )
        self._wait_for("head", set())

    def start_worker(self, name: str, num_cpus: int = 1) -> None:
        """Start another machine and wait until the cluster counts it."""
        known = {node["node_id"] for node in self.nodes()}
        self._start(name, [f"--address={self._gcs_address}"], num_cpus)
        self._wait_for(name, known)

    def _start(self, name: str, words: list[str], num_cpus: int) -> None:
        home = self.folder / name
        for part in ("home", "tmp", "ray", "work"):
            (home / part).mkdir(parents=True)
        (home / "token").write_text(self.token)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *(f"--num-cpus={num_cpus}", "--memory=8000000000", "--object-store-memory=100000000"),
            f"--dashboard-agent-listen-port={free_port()}",  # the default belongs to whatever other cluster runs here
            *words,
        ]
        if self._network:
            number = 10 + self._num_started
            own = [*command, f"--node-ip-address={self._network.address(number)}"]
            command = self._network.isolated(name, number, own, self.folder)
        self._num_started += 1
        environment = {
            # No `python` of this environment on the path: jobs have to find Ray's own.
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "RAY_TMPDIR": str(home / "ray"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(home / "token"),
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "10",
            "LANG": "C.UTF-8",
            **self.machine_environment,
        }

        def boot() -> None:
            with (self.folder / f"{name}.log").open("ab") as log:
                self._machines[name] = subprocess.Popen(
                    command, cwd=home / "work", env=environment, stdout=log, stderr=log, start_new_session=True
                )

        self._boots[name] = boot
        boot()

    def kill(self, name: str) -> None:
        """Kill a machine: all of its processes at once."""
        machine = self._machines.pop(name)
        if self.isolated:
            machine.kill()  # the end of a namespace's first process is the end of all of them
        else:
            machine.terminate()  # `ray start --block` ends its processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
        machine.wait()

    def close(self) -> None:
        """Kill what still runs."""
        for name in list(self._machines):
            self.kill(name)
        if self._network:
            self._network.close()

    def get(self, path: str) -> object:
        """Return a JSON answer of the dashboard."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def nodes(self) -> list[dict[str, object]]:
        """Return the machines that live, as the cluster sees it."""
        answer = self.get("/api/v0/nodes?detail=1")
        assert isinstance(answer, dict)
        return [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]

    def _wait_for(self, name: str, known: set[object]) -> None:
        """Wait for a node that was not known before the machine was started.

        ``ray start`` gives up after 30 seconds, which a busy machine may need: it is started again then.
        """
        deadline_s = time.monotonic() + START_PATIENCE_S
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
                if {node["node_id"] for node in self.nodes()} - known:
                    return
            if time.monotonic() > deadline_s:
                logs = [path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")]
                pytest.fail(f"machine {name} is missing: " + "\n".join(logs))
            if self._machines[name].poll() is not None:
                self._boots[name]()
            time.sleep(0.2)


class _Network:
    """A bridge and a network namespace for each machine."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self._bridge, self._subnet = f"smbr{os.getpid()}"[:15], f"198.18.{number}"
        self._namespaces: list[str] = []
        self._links: list[str] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address(1)}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def address(self, number: int) -> str:
        return f"{self._subnet}.{number}"

    def isolated(self, name: str, number: int, command: list[str], folder: Path) -> list[str]:
        """Return a command that runs another one on a machine of its own."""
        namespace, outside = f"sm{os.getpid()}-{name}", f"sm{os.getpid()}v{number}"[:15]
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._links.append(outside)
        _ip("link", "set", outside, "master", self._bridge, "up")
        for words in (("addr", "add", f"{self.address(number)}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _ip("-n", namespace, *words)
        _ip("-n", namespace, "link", "set", "lo", "up")
        script = ["set -e", f"hostname {name}", "mount -t tmpfs none /dev/shm"]
        # Of the cluster's folder a machine sees its own part alone, and of this checkout nothing that is sent.
        script += [f"mount --bind {folder}/{name} /mnt", f"mount -t tmpfs none {folder}", f"mkdir {folder}/{name}"]
        script += [f"mount --move /mnt {folder}/{name}", f"cd {folder}/{name}/work"]
        script += [f"mount -t tmpfs none '{ROOT / part}'" for part in ("pipeline", "jobs", "tests")]
        script += ['exec "$@"']
        inside = ["unshare", "--fork", "--pid", "--mount", "--uts", "--mount-proc", "--kill-child"]
        return ["ip", "netns", "exec", namespace, *inside, "sh", "-c", "\n".join(script), "sh", *command]

    def close(self) -> None:
        for namespace in self._namespaces:
            _ip("netns", "del", namespace)
        for link in (*self._links, self._bridge):  # sockets of the dead may keep their network for a while
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def cluster(*, isolated: bool, machine_environment: dict[str, str] | None = None) -> Iterator[Cluster]:
    """Yield a cluster without machines; whatever is started in it is gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="smc-"))
    folder.chmod(0o755)
    made = Cluster(folder, isolated=isolated, machine_environment=machine_environment)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def forwarded(host: str, target_url: str) -> Iterator[str]:
    """Make a service on this test's loopback available on another of its addresses: the URL there."""
    scheme, _, target = target_url.partition("://")
    target_host, _, target_port = target.partition(":")
    server = socket.create_server((host, 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                upstream = socket.create_connection((target_host, int(target_port)))
                for pair in ((client, upstream), (upstream, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"{scheme}://{host}:{server.getsockname()[1]}"
    finally:
        server.close()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
