"""The web as a store, against real servers on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from stylemill.errors import (
    AccessDenied,
    ConfigError,
    ObjectNotFound,
    PathConflict,
    RedirectLoop,
    StorageError,
    Unreachable,
)
from stylemill.storage import Storage, StorageOptions, hosts, http
from stylemill.storage import storage as storage_module
from stylemill.storage.sources import find_sources
from tests.drawn import image_bytes
from tests.web import Web, dead_url, web_server

PICTURE = image_bytes(20, 30)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as web:
        yield web


@pytest.fixture
def storage() -> Storage:
    return Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))


def test_pictures_are_read(storage: Storage, web: Web):
    for path in ("/1.jpg", "/a%20b.jpg", "/a b.jpg", "/é.jpg?w=1&x=/y", "/to?/2.jpg", "/to?" + web.url + "/3.jpg"):
        assert storage.read_bytes(web.url + path) == PICTURE
        assert storage.read_head(web.url + path, 10) == PICTURE[:10]
    found = storage.stat(f"{web.url}/d/1.jpg")  # the server refuses HEAD
    assert (found.uri, found.key, found.size_bytes) == (f"{web.url}/d/1.jpg", "1.jpg", len(PICTURE))
    assert [item.key for item in find_sources(storage, f"{web.url}/1.jpg?w=1")] == ["1.jpg?w=1"]
    assert storage.exists(f"{web.url}/1.jpg") and not storage.exists(f"{web.url}/status/404")


def test_a_list_on_the_web_is_read_in_parts(storage: Storage, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(storage_module, "COPIED_AT_ONCE", 100)  # the server knows nothing of ranges
    storage.copy_to(f"{web.url}/1.jpg", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("path", "error", "num_requests"),
    [
        ("/status/404", ObjectNotFound, 1),
        ("/status/410", ObjectNotFound, 1),
        ("/status/401", AccessDenied, 1),
        ("/status/403", AccessDenied, 1),
        ("/status/451", AccessDenied, 1),
        ("/status/400", AccessDenied, 1),
        ("/status/304", AccessDenied, 1),
        ("/status/204", AccessDenied, 1),
        ("/loop", RedirectLoop, http.MAX_REDIRECTS + 1),
        ("/to?ftp://h/x", PathConflict, 1),
        ("/to?http://[::1/x", PathConflict, 1),
        ("/to?/status/410", ObjectNotFound, 1),
    ],
)
def test_an_answer_is_final(storage: Storage, web: Web, path: str, error: type[StorageError], num_requests: int):
    with pytest.raises(error) as caught:
        storage.read_bytes(web.url + path)
    assert type(caught.value) is error
    assert web.requests.total() == num_requests + path.startswith("/to?/")


def test_faults_that_pass_are_retried(storage: Storage, web: Web):
    assert storage.read_bytes(f"{web.url}/flaky/2") == PICTURE
    assert web.requests["/flaky/2"] == 3


@pytest.mark.parametrize("path", ["/reset", "/half", "/drip", "/status/500", "/status/503", "/status/522"])
def test_a_location_that_fails_for_ever_is_given_up_while_another_is_answered(storage: Storage, web: Web, path: str):
    storage.read_bytes(f"{web.url}/1.jpg")
    with pytest.raises(Unreachable, match=path) as caught:
        storage.read_bytes(web.url + path)
    assert web.requests[path] >= 2 and str(caught.value).count(web.url) == 1


def test_a_host_that_always_asks_for_patience_is_given_up(storage: Storage, web: Web, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hosts, "THROTTLED_FOR_S", 0.5)
    storage.read_bytes(f"{web.url}/1.jpg")
    with pytest.raises(Unreachable, match="429"):
        storage.read_bytes(f"{web.url}/status/429")
    assert web.requests["/status/429"] >= 3


def test_a_body_without_an_end_is_cut_off(storage: Storage, web: Web):
    assert storage.read_head(f"{web.url}/endless", 10**6) == b"x" * 10**6


def test_nobody_waits_again_for_a_dead_host(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))
        storage.read_bytes(f"{other.url}/1.jpg")
        web.is_down = True
        for number in range(2):  # one finds out, the next one waits whether it comes back
            assert isinstance(_error_of(storage, f"{web.url}/{number}.jpg"), Unreachable)
        num_requests = web.requests.total()
        for number in range(200):
            with pytest.raises(Unreachable, match="is dead"):
                storage.read_bytes(f"{web.url}/{number}.jpg")
        assert web.requests.total() == num_requests
        assert other.requests.total() <= 4, "few requests showed that the network works"
        assert storage.read_bytes(f"{other.url}/to?{other.url}/2.jpg") == PICTURE
        with pytest.raises(Unreachable):  # a redirect to it is not waited for either
            storage.read_bytes(f"{other.url}/to?{web.url}/1.jpg")
        assert web.requests.total() == num_requests
        assert storage.read_bytes(f"{other.url}/3.jpg") == PICTURE, "the one that redirects is not dead"


def test_a_dead_host_is_asked_again_after_a_while(web: Web, monkeypatch: pytest.MonkeyPatch):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))
        storage.read_bytes(f"{other.url}/1.jpg")
        web.is_down = True
        for number in range(2):
            assert isinstance(_error_of(storage, f"{web.url}/{number}.jpg"), Unreachable)
        at_first, begin_s, now_s = web.requests.total(), time.monotonic(), [0.0]
        monkeypatch.setattr(hosts, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
        num_requests = []
        for passed_s in (0, 1, 58, 61, 62, 179, 182, 200):  # asked again after 60 s, then after 120 s
            now_s[0] = begin_s + passed_s
            with pytest.raises(Unreachable):
                storage.read_bytes(f"{web.url}/1.jpg")
            num_requests.append(web.requests.total() - at_first)
        assert num_requests == [0, 0, 0, 1, 1, 1, 2, 2]
        web.is_down = False
        assert isinstance(_error_of(storage, f"{web.url}/2.jpg"), Unreachable)
        now_s[0] = begin_s + 500
        for number in range(3):
            assert storage.read_bytes(f"{web.url}/{number}.jpg") == PICTURE


def test_a_host_that_answered_before_is_not_dead_for_one_location(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))
        storage.read_bytes(f"{web.url}/1.jpg")
        storage.read_bytes(f"{other.url}/1.jpg")
        assert isinstance(_error_of(storage, f"{web.url}/reset"), Unreachable)
        assert storage.read_bytes(f"{web.url}/2.jpg") == PICTURE
        for number in range(9):  # those after the first ones do not wait
            assert isinstance(_error_of(storage, f"{web.url}/reset?{number}"), Unreachable)


def test_a_host_with_some_faults_is_not_dead(storage: Storage, web: Web):
    for number in range(5):
        storage.read_bytes(f"{web.url}/{number}.jpg")
        with pytest.raises(Unreachable):
            storage.read_bytes(f"{web.url}/status/50{number}")
    assert storage.read_bytes(f"{web.url}/last.jpg") == PICTURE


def test_a_host_of_nothing_but_faults_is_dead(web: Web):
    with web_server() as other:
        storage = Storage(StorageOptions(retry_deadline_s=3.0, timeout_s=0.5))
        storage.read_bytes(f"{other.url}/1.jpg")
        for number in range(100):
            with pytest.raises(Unreachable):
                storage.read_bytes(f"{web.url}/status/500?{number}")
    assert web.requests.total() < 100


@pytest.mark.parametrize("path", ["/1.jpg", "/status/503"])
def test_if_nothing_is_answered_the_run_stops(web: Web, path: str):
    """The network of this machine may be at fault: no source is given up for that."""
    web.is_down = path == "/1.jpg"
    other = dead_url()
    storage = Storage(
        StorageOptions(retry_deadline_s=1.5, timeout_s=0.5), web_witnesses=lambda: [web.url + path, f"{other}/1.jpg"]
    )
    with ThreadPoolExecutor(4) as pool:
        uris = [f"{root}{path}?{number}" for number in range(2) for root in (web.url, other)]
        for error in pool.map(lambda uri: _error_of(storage, uri), uris):
            assert type(error) is StorageError and "resume" in str(error)


def test_a_witness_of_the_plan_shows_that_the_network_works(web: Web):
    dead = dead_url()
    storage = Storage(
        StorageOptions(retry_deadline_s=3.0), web_witnesses=lambda: [f"{dead}/0.jpg", f"{web.url}/status/404"]
    )
    assert isinstance(_error_of(storage, f"{dead}/1.jpg"), Unreachable)
    assert web.requests == {"/status/404": 1}


def test_a_network_that_comes_back_in_time_loses_nothing(web: Web):
    web.is_down = True
    storage = Storage(StorageOptions(retry_deadline_s=20.0, timeout_s=0.5))
    timer = threading.Timer(1.0, lambda: setattr(web, "is_down", False))
    timer.start()
    assert storage.read_bytes(f"{web.url}/1.jpg") == PICTURE
    assert web.requests["/1.jpg"] > hosts.MAX_ATTEMPTS


def test_a_name_that_does_not_exist_is_given_up(web: Web):
    storage = Storage(StorageOptions(retry_deadline_s=6.0, timeout_s=0.5))
    storage.read_bytes(f"{web.url}/1.jpg")
    for uri in ("http://no-such-host.invalid/a.jpg", "https://" + web.url.partition("://")[2] + "/1.jpg"):  # no TLS
        assert isinstance(_error_of(storage, uri), Unreachable), uri


@pytest.mark.parametrize("uri", ["http://", "http:///a", "http://[::1/a", "http://h:port/a", f"http://{'a' * 80}/x"])
def test_what_is_not_a_url_is_a_conflict(storage: Storage, uri: str):
    assert isinstance(_error_of(storage, uri), PathConflict)


def test_the_web_cannot_be_written(storage: Storage, web: Web):
    for attempt in (storage.create_bytes, storage.write_bytes):
        with pytest.raises(StorageError, match="nothing can be written"):
            attempt(f"{web.url}/new.jpg", b"x")
    assert list(storage.list_objects(f"{web.url}/folder")) == []
    with pytest.raises(ConfigError):
        storage.read_bytes("http://me:hunter2@127.0.0.1/a.jpg")


def _error_of(storage: Storage, uri: str) -> Exception:
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(uri)
    return caught.value
