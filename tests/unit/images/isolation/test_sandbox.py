"""A process in the sandbox tries what it must not do; pictures decode there as everywhere."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.isolation.child import _forbidden
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.isolation.sandbox import _MACHINES
from stylemill.images.options import DecodeOptions
from stylemill.images.source_image import SourceImage
from tests.unit.images.drawn import every_file, picture, save

linux = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

TRIES = """
import ctypes, json, os, platform, resource, socket, subprocess, sys, threading
from pathlib import Path
from stylemill.images.isolation import sandbox

parent = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
tgkill = sandbox._MACHINES[platform.machine()].tgkill
own, left, right = os.open(sys.argv[1], os.O_RDWR), *socket.socketpair()
entered = eval(sys.argv[2])
tries = {
    "read a file": lambda: open("/etc/hostname").read(),
    "read the parent's environment": lambda: open(f"/proc/{parent}/environ").read(),
    "read the parent's memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDONLY),
    "write a file": lambda: open(sys.argv[1], "a"),
    "make a file": lambda: open(sys.argv[1] + ".new", "x"),
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink(sys.argv[1]),
    "make a folder": lambda: os.mkdir(sys.argv[1] + ".folder"),
    "run a program": lambda: subprocess.run(["/bin/true"]),
    "replace itself": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "open a socket": lambda: socket.socket(socket.AF_INET),
    "open a local socket": lambda: socket.socketpair(),
    "end its parent": lambda: os.kill(parent, 0),
    "inspect its parent": lambda: check(libc.ptrace(16, parent, 0, 0)),
    "make an io_uring": lambda: check(libc.syscall(425, 4, ctypes.create_string_buffer(120))),
    "change a mode": lambda: os.chmod(sys.argv[1], 0o777),
    "change a mode, the new way": lambda: check(libc.syscall(452, -100, sys.argv[1].encode(), 0o777, 0)),
    "change an owner": lambda: os.chown(sys.argv[1], 0, 0),
    "change an attribute": lambda: os.setxattr(sys.argv[1], "user.x", b"1"),
    "change a time": lambda: os.utime(sys.argv[1], (1, 1)),
    "read the limits of its parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
    "set the priority of its parent": lambda: os.setpriority(0, parent, os.getpriority(0, parent)),
    "signal a thread of its parent": lambda: check(libc.syscall(tgkill, parent, parent, 0)),
    "share memory": lambda: check(libc.shmget(0, 4096, 0o1600)),
}

def check(returned):
    if returned < 0:
        raise OSError(ctypes.get_errno(), "refused")

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.errno
    return "done"

done = {name: outcome(attempt) for name, attempt in tries.items()}
thread = threading.Thread(target=lambda: left.sendall(b"alive"))
thread.start()
thread.join()
os.ftruncate(own, 1 << 20)
print(json.dumps({"entered": entered, "done": done, "works": right.recv(9).decode(), "size": os.fstat(own).st_size}))
"""


def try_everything(tmp_path: Path, enter: str = "sandbox.enter_sandbox()") -> dict:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    command = [sys.executable, "-c", textwrap.dedent(TRIES), str(target), enter]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]
    return json.loads(ran.stdout)


@linux
def test_a_process_in_the_sandbox_can_do_nothing_but_compute_and_answer(tmp_path: Path):
    if "Seccomp:" not in Path("/proc/self/status").read_text() or platform.machine() not in _MACHINES:
        pytest.skip("this kernel has no seccomp filters, or the processor is of another kind")
    found = try_everything(tmp_path)
    assert "seccomp" in found["entered"]
    assert {name for name, outcome in found["done"].items() if outcome == "done"} == set()
    assert found["works"] == "alive" and found["size"] == 1 << 20


@linux
def test_landlock_alone_denies_files(tmp_path: Path):
    enter = "(libc.prctl(38, 1, 0, 0, 0), sandbox._restrict_files(libc))[1]"
    found = try_everything(tmp_path, enter)
    if not found["entered"]:
        pytest.skip("this kernel has no Landlock")
    denied = {name for name, outcome in found["done"].items() if outcome != "done"}
    assert {name for name in found["done"] if "file" in name or "folder" in name or "environment" in name} <= denied
    assert {"run a program", "replace itself"} <= denied


@linux
def test_the_decoder_s_child_is_in_the_sandbox(isolated: IsolatedDecoder):
    isolated.decode(save(picture("RGB"), "PNG"))
    assert isolated._child is not None
    status = Path(f"/proc/{isolated._child._process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if "Seccomp" not in fields:
        pytest.skip("this kernel has no seccomp filters")
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")


@linux
def test_another_process_of_the_user_cannot_read_the_environment_of_one_that_decodes(tmp_path: Path):
    tries = """
    import ctypes, os, subprocess
    from stylemill.images.isolation.sandbox import protect_environment
    if os.getuid() == 0:  # root may read everything
        os.setgid(65534), os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of the user has protected it already
    read = lambda: subprocess.run(["cat", f"/proc/{os.getpid()}/environ"], capture_output=True).returncode
    before = read()
    protect_environment()
    print(before, read())
    """
    command = [sys.executable, "-c", textwrap.dedent(tries)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == ["0", "1"], ran.stderr


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(DecodeOptions(animation="all")) as decoder:
        yield decoder


@pytest.mark.parametrize("name", every_file())
def test_every_format_decodes_in_the_sandbox_as_outside(isolated: IsolatedDecoder, name: str):
    data = every_file()[name]
    assert outcome(isolated.decode, data) == outcome(lambda data: decode(data, isolated.options), data)


@pytest.mark.parametrize("text", ["Ansel", "Stra\u00dfe", "\u65e5\u672c", "\u0416"])
def test_text_in_metadata_needs_no_file(isolated: IsolatedDecoder, text: str):
    """Python imports each text encoding when it is first used."""
    exif = picture("RGB").getexif()
    exif[0x8298] = text
    exif[0x010E] = text
    data = save(picture("RGB"), "JPEG", exif=exif.tobytes())
    assert outcome(isolated.decode, data) == outcome(lambda data: decode(data, isolated.options), data)


def outcome(decoder: Callable[[bytes], SourceImage], data: bytes) -> tuple[object, ...]:
    try:
        source = decoder(data)
    except ImageError as error:
        return error.error_type, str(error)
    alpha = None if source.alpha_HW is None else source.alpha_HW.tobytes()
    return source.image_HWC.tobytes(), alpha, source.source_format


def test_nothing_is_opened_or_imported_while_an_image_is_decoded():
    """Also not what the sandbox would deny on another machine: this is why all plugins are imported before."""
    tries = """
    import sys
    from stylemill.images.isolation import child
    from stylemill.images.decode import decode
    from stylemill.images.formats.plugins import import_plugins
    from stylemill.images.options import DecodeOptions
    from tests.unit.images.drawn import every_file
    files = every_file().values()
    for name in [name for name in sys.modules if name.startswith(("encodings.", "xml"))]:
        if name not in ("encodings.utf_8", "encodings.aliases"):
            del sys.modules[name]
    import_plugins()
    seen, watch = [], True
    sys.addaudithook(lambda event, arguments: watch and event in ("open", "import") and seen.append(arguments[0]))
    for data in files:
        try:
            decode(data, DecodeOptions())
        except Exception:
            pass
    watch = False
    print(len(files), seen)
    """
    root = Path(__file__).parents[4]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", textwrap.dedent(tries)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    number, seen = ran.stdout.split(maxsplit=1)
    assert int(number) > 100 and seen.strip() == "[]"


def test_a_file_that_the_sandbox_forbids_is_not_called_damage():
    cause = PermissionError(1, "Operation not permitted", "/usr/lib/encodings/ascii.py")
    error = ImageError("Corrupt", "the JPEG data is damaged")
    error.__cause__ = cause
    found = _forbidden(error)
    assert found is not None and found.error_type == "DecoderForbidden" and "ascii.py" in str(found)
    assert _forbidden(ImageError("Corrupt", "the JPEG data is damaged")) is None
