"""Hosts of the web that fail for a while, for ever or on purpose, against real servers on loopback."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from stylemill.errors import AccessDenied, StorageError, Unreachable
from stylemill.storage import Storage, StorageOptions, http
from stylemill.storage import storage as storage_module
from tests.web import Web, web_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
Answer = Callable[[socket.socket, bytes], None]


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as web:
        yield web


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Return a function that starts a server, which gives each connection and its request to an answer."""
    with ExitStack() as servers:

        def start(answer: Answer) -> str:
            server = servers.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
            servers.callback(server.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_accept, args=(server, answer), daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}"

        yield start


def _accept(server: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_answer, args=(server.accept()[0], answer), daemon=True).start()


def _answer(connection: socket.socket, answer: Answer) -> None:
    with connection, contextlib.suppress(OSError):
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536) or b"\r\n\r\n"
        answer(connection, request)


def _dripping(begin: bytes) -> Answer:
    """Return an answer that begins with these bytes; one more follows every 0.1 s, for 20 s."""

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.1)

    return drip


def _outcome(storage: Storage, uri: str) -> str:
    try:
        storage.read_head(uri, 10)
    except StorageError as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("has_answered", [False, True])
@pytest.mark.parametrize("fault", [b"", BUSY])
def test_a_blip_of_a_host_loses_no_source(serve: Callable[[Answer], str], web: Web, has_answered: bool, fault: bytes):
    is_down = threading.Event()
    host = serve(lambda connection, _: connection.sendall(fault if is_down.is_set() else OK))
    storage = Storage(StorageOptions())
    storage.read_head(f"{web.url}/1.jpg", 10)
    if has_answered:
        storage.read_head(f"{host}/0", 10)
    is_down.set()
    threading.Timer(1.5, is_down.clear).start()
    with ThreadPoolExecutor(16) as pool:
        outcomes = pool.map(lambda number: _outcome(storage, f"{host}/{number}"), range(200))
        for number in range(20):
            storage.read_head(f"{web.url}/{number}.jpg", 10)
        assert Counter(outcomes) == {"ok": 200}


def test_sources_of_a_dead_host_wait_once_until_it_was_asked_again(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=6.0))  # so: given up after 1 s, asked again after 3 s
        storage.read_head(f"{other.url}/1.jpg", 10)
        web.is_down = True
        assert _outcome(storage, f"{web.url}/0.jpg") == "Unreachable"
        threading.Timer(0.5, lambda: setattr(web, "is_down", False)).start()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda number: _outcome(storage, f"{web.url}/{number}.jpg"), range(50))) == {"ok"}


def test_a_burst_of_failures_does_not_lengthen_the_pause(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0))
        storage.read_head(f"{other.url}/1.jpg", 10)
        web.is_down = True
        with ThreadPoolExecutor(16) as pool:
            outcomes = Counter(pool.map(lambda number: _outcome(storage, f"{web.url}/{number}.jpg"), range(64)))
        assert outcomes == {"Unreachable": 64}
        with pytest.raises(Unreachable, match=r"again in (60|5\d) s"):
            storage.read_head(f"{web.url}/1.jpg", 10)


def test_a_host_that_redirects_counts_as_answering(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0))
        storage.read_head(f"{other.url}/1.jpg", 10)
        storage.read_head(f"{web.url}/to?{other.url}/1.jpg", 10)
        web.is_down = True
        begin_s = time.monotonic()
        assert _outcome(storage, f"{web.url}/1.jpg") == "Unreachable"
        assert time.monotonic() - begin_s > 1.4, "it has lived, so it is waited for"


def test_a_connection_that_was_kept_alive_proves_nothing(web: Web, monkeypatch: pytest.MonkeyPatch):
    """The resolver of this machine is down; a host that was asked before still answers on its old connection."""
    real, is_down = socket.getaddrinfo, threading.Event()

    def look_up(host: str, *args: object, **named: object) -> object:
        if is_down.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    port = web.url.rpartition(":")[2]
    web.keeps_alive = True
    storage = Storage(StorageOptions(retry_deadline_s=2.0))
    storage.read_bytes(f"http://alive.example:{port}/1.jpg")
    is_down.set()
    assert storage.read_bytes(f"http://alive.example:{port}/2.jpg"), "on the old connection"
    assert _outcome(storage, f"http://other.example:{port}/1.jpg") == "StorageError"


def test_hosts_whose_names_do_not_exist_are_not_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch):
    """Most dead links of an old list; each of these hosts would cost 20 seconds."""
    resolve, asked = socket.getaddrinfo, Counter[str]()

    def answer(name: str, *arguments: object, **options: object) -> object:
        asked[str(name)] += 1
        if str(name).endswith(".example"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *arguments, **options)  # type: ignore[arg-type]

    witnesses = [f"{web.url}/a.png"]
    storage = Storage(StorageOptions(), web_witnesses=lambda: witnesses)
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with ThreadPoolExecutor(4) as threads:
        outcomes = Counter(
            threads.map(lambda number: _outcome(storage, f"http://gone{number}.example/a.png"), range(12))
        )
    assert outcomes == {"Unreachable": 12}
    assert {asked[f"gone{number}.example"] for number in range(12)} == {3}
    # With the resolver down, nothing is given up.
    monkeypatch.setattr(socket, "getaddrinfo", _no_name)
    impatient = Storage(StorageOptions(retry_deadline_s=3), web_witnesses=lambda: ["http://alive.example/a.png"])
    assert _outcome(impatient, "http://gone.example/a.png") == "StorageError"


def _no_name(*_: object, **__: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_witness_has_the_scheme_of_what_failed(web: Web):
    """The way out may be open for one port only; a few hosts of a rare scheme must not stop the run, though."""
    dead = [f"https://127.0.0.{number}:1/a.jpg" for number in range(2, 8)]
    for num_alike, outcome in ((6, "StorageError"), (2, "Unreachable")):
        witnesses = [*dead[:num_alike], f"{web.url}/1.jpg"]
        storage = Storage(StorageOptions(retry_deadline_s=2.0), web_witnesses=lambda known=witnesses: known)
        assert _outcome(storage, dead[0]) == outcome


def test_the_body_of_a_redirect_is_not_read(serve: Callable[[Answer], str]):
    def answer(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"GET /end"):
            connection.sendall(OK)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /end\r\n\r\n")
        for _ in range(200):
            connection.sendall(bytes(2**20))

    host = serve(answer)
    storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=1.0))
    tracemalloc.start()
    assert storage.read_head(f"{host}/a", 10) == b"ok"
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20 * 2**20


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_attempt_ends_however_slowly_a_host_speaks(
    serve: Callable[[Answer], str], web: Web, monkeypatch: pytest.MonkeyPatch, begin: bytes
):
    monkeypatch.setattr(http, "BODY_S", 1.0)
    monkeypatch.setattr(http, "LEAST_BYTES_PER_S", 0)

    host = serve(_dripping(begin))
    storage = Storage(StorageOptions(retry_deadline_s=6.0, timeout_s=0.5))
    storage.read_head(f"{web.url}/1.jpg", 10)
    begin_s = time.monotonic()
    with pytest.raises(Unreachable):
        storage.read_bytes(f"{host}/a")
    assert time.monotonic() - begin_s < 10


def test_a_body_whose_length_never_ends_is_cut_off(
    serve: Callable[[Answer], str], web: Web, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http, "BODY_S", 1.0)

    host = serve(_dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;"))
    storage = Storage(StorageOptions(retry_deadline_s=6.0, timeout_s=0.5))
    storage.read_head(f"{web.url}/1.jpg", 10)
    begin_s = time.monotonic()
    assert _outcome(storage, f"{host}/a") == "Unreachable"
    assert time.monotonic() - begin_s < 10


def test_a_small_picture_that_comes_late_is_read(serve: Callable[[Answer], str]):
    def late(connection: socket.socket, _: bytes) -> None:
        time.sleep(0.3)
        connection.sendall(OK[:-2])
        time.sleep(0.3)
        connection.sendall(OK[-2:])

    storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))
    assert storage.read_bytes(f"{serve(late)}/a") == b"ok"


def test_no_login_of_the_machine_is_sent_and_none_is_shown(
    serve: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    requests: list[bytes] = []
    status = [b"404 Gone"]

    def refuse(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status[0])

    host = serve(refuse)
    storage = Storage(StorageOptions(retry_deadline_s=1.0))
    with caplog.at_level("DEBUG", "stylemill"):
        for status[0] in (
            b"404 Gone",
            b"403 No",
            b"503 Busy",
            b"302 There\r\nLocation: http://you:pass@127.0.0.1:1/?x",
        ):
            with pytest.raises(StorageError) as caught:
                storage.read_bytes(f"{host}/a.jpg?w=secret")
            assert "secret" not in str(caught.value) and "pass@" not in str(caught.value)
    assert requests and not any(b"authorization" in request.lower() for request in requests)
    assert "secret" not in caplog.text and "pass@" not in caplog.text


def test_a_redirect_to_the_private_network_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch):
    from stylemill.storage import web_connections

    public: set[int] = {int(web.url.rpartition(":")[2])}
    monkeypatch.setattr(web_connections, "_is_public", lambda connected: connected.getpeername()[1] in public)
    with web_server() as inside:
        storage = Storage(StorageOptions(retry_deadline_s=3.0))
        with pytest.raises(AccessDenied, match="private address"):
            storage.read_bytes(f"{web.url}/to?{inside.url}/1.jpg")
        assert not inside.requests
        assert storage.read_bytes(f"{web.url}/to?/1.jpg")
        public.clear()  # a list that names a private host may be led on
        assert storage.read_bytes(f"{web.url}/to?{inside.url}/1.jpg")


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_list_that_comes_in_short_parts_is_copied_whole(
    serve: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_ranges: bool
):
    monkeypatch.setattr(storage_module, "COPIED_AT_ONCE", 100)
    text = bytes(range(250)) * 2
    num_whole = [0]

    def answer(connection: socket.socket, request: bytes) -> None:
        found = re.search(rb"bytes=(\d+)-(\d+)", request)
        if found is None or not knows_ranges:
            num_whole[0] += 1
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text)
            is_cut = found is not None and num_whole[0] == 2
            connection.sendall(head + (text[:120] if is_cut else text))
            return
        start = int(found[1])
        part = text[start : min(start + 60, int(found[2]) + 1)]  # shorter than asked for
        span = b"%d-%d/%d" % (start, start + len(part) - 1, len(text))
        head = b"HTTP/1.1 206 Part\r\nContent-Range: bytes %s\r\nContent-Length: %d\r\n" % (span, len(part))
        connection.sendall(head + b"Connection: close\r\n\r\n" + part)

    storage = Storage(StorageOptions(retry_deadline_s=5.0))
    storage.copy_to(f"{serve(answer)}/list.txt", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == text
    assert num_whole[0] <= 4, "the rest of one answer is used"


def test_a_list_of_another_size_than_stated_is_refused(serve: Callable[[Answer], str], tmp_path: Path):
    def answer(connection: socket.socket, request: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        connection.sendall(head + (b"\r\nhalf" if b"bytes=" in request else b"Content-Length: 8\r\n\r\nhalfhalf"))

    with pytest.raises(StorageError, match="4 of 8 bytes"):
        Storage(StorageOptions(retry_deadline_s=2.0)).copy_to(f"{serve(answer)}/list.txt", tmp_path / "copy")
