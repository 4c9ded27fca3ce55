from __future__ import annotations

import errno
import fcntl
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stylemill.storage.storage as storage_module
from stylemill.errors import AccessDenied, ConfigError, ObjectNotFound, PathConflict, StorageError
from stylemill.storage import Storage, StorageOptions, join
from stylemill.storage.local import TEMPORARY_PREFIX, LocalStore

NASTY = [
    "a",
    "a.jpg",
    "a-b",
    "A",
    "b-c",
    "b.c",
    "b/c",
    "b/c.d/e",
    "b0",
    "é",
    "e\u0301",
    "with space",
    "line\nbreak",
    "💡",
    "￿",
    "日本/語 .png",
]
NASTY += [
    "-rf",
    "%41",
    "a+b",
    "a?b",
    "a#b",
    "a*",
    "[x]",
    "~",
    "~nobody-here/x",
    "'\"",
    "\\",
    "\x01",
    " lead",
    "trail ",
    "a~",
]


@pytest.fixture
def storage() -> Storage:
    return Storage(StorageOptions(retry_deadline_s=1.0))


def keys(storage: Storage, root: object, after: str = "") -> list[str]:
    return [found.key for found in storage.list_objects(str(root), after)]


def test_what_is_written_is_read(storage: Storage, tmp_path: Path):
    for number, key in enumerate(NASTY):
        uri = join(str(tmp_path), "deep/er", key)
        storage.write_bytes(uri, b"%d" % number)
        assert storage.read_bytes(uri) == b"%d" % number
        assert storage.read_head(uri, 1) == str(number).encode()[:1]
        found = storage.stat(uri)
        assert (found.uri, found.size_bytes, found.key) == (uri, len(str(number)), key.rpartition("/")[2])
        storage.write_bytes(uri, b"again", durable=True)
        assert storage.read_bytes(uri) == b"again"
        assert storage.stat(uri).etag != found.etag


def test_a_listing_has_every_name_in_order_of_key(storage: Storage, tmp_path: Path):
    for key in NASTY:
        storage.write_bytes(join(str(tmp_path), key), key.encode())
    found = list(storage.list_objects(str(tmp_path)))
    assert [item.key for item in found] == sorted(NASTY)
    for item in found:
        assert item.uri == join(str(tmp_path), item.key)
        assert item.size_bytes == len(item.key.encode()) and item.problem_type is None
        assert item.etag == storage.stat(item.uri).etag
        assert storage.read_bytes(item.uri).decode() == item.key
        assert keys(storage, tmp_path, item.key) == [key for key in sorted(NASTY) if key > item.key]


names = st.text(st.sampled_from("ab-./0ABé~"), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(names, max_size=8), names)
def test_a_listing_continues_after_any_key(tmp_path_factory: pytest.TempPathFactory, wanted: list[str], after: str):
    root, storage, written = tmp_path_factory.mktemp("list"), Storage(), set()
    for key in wanted:
        if "" in key.split("/") or set(key.split("/")) & {".", ".."}:
            continue
        try:
            storage.write_bytes(join(str(root), key), b"")
        except PathConflict:  # 'a' and 'a/b' cannot both exist
            continue
        written.add(key)
    assert keys(storage, root) == sorted(written)
    for start in (after, *written):
        assert keys(storage, root, start) == sorted(key for key in written if key > start)


def test_what_is_not_a_file_is_reported(storage: Storage, tmp_path: Path):
    (tmp_path / "real").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder-link").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    found = {item.key: item for item in storage.list_objects(str(tmp_path))}
    assert {key: item.problem_type for key, item in found.items()} == {
        "real": None,
        "link": None,
        "folder/inside": None,
        "broken": "BrokenLink",
        "loop": "BrokenLink",
        "folder-link": "DirectoryLink",
        "pipe": "SpecialFile",
    }
    assert found["link"].size_bytes == 5
    assert all(item.problem for item in found.values() if item.problem_type)


def test_names_that_are_not_utf8_have_keys_that_are(storage: Storage, tmp_path: Path):
    root = os.fsencode(tmp_path)
    for name in (b"a", b"\xff.jpg", b"zz", b"caf\xe9"):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"x")
    Path(os.fsdecode(root + b"/dir\xfe")).mkdir()
    Path(os.fsdecode(root + b"/dir\xfe/inside")).write_bytes(b"x")
    found = list(storage.list_objects(str(tmp_path)))
    all_keys = [item.key for item in found]
    assert all_keys == sorted(all_keys) and len(set(all_keys)) == 5
    assert {item.key: item.problem_type for item in found} == {
        "a": None,
        "zz": None,
        "\\xff.jpg": "NameNotUtf8",
        "caf\\xe9": "NameNotUtf8",
        "dir\\xfe/inside": "NameNotUtf8",
    }
    for item in found:
        (item.key + item.uri).encode()
        assert keys(storage, tmp_path, item.key) == all_keys[all_keys.index(item.key) + 1 :]


def test_files_being_written_are_not_listed(storage: Storage, tmp_path: Path):
    (tmp_path / f"{TEMPORARY_PREFIX}0123").write_bytes(b"half")
    assert keys(storage, tmp_path) == []


def test_leftovers_of_killed_processes_can_be_removed(storage: Storage, tmp_path: Path):
    for folder in ("full", "half", "half/empty", "fresh"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "object").write_bytes(b"whole")
    (tmp_path / "half" / f"{TEMPORARY_PREFIX}0123").write_bytes(b"half")
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (0, 0))
    (tmp_path / "fresh" / f"{TEMPORARY_PREFIX}4567").write_bytes(b"under way")
    storage.remove_leftovers(str(tmp_path), older_than_s=60)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"full", "full/object", "half", "fresh", f"fresh/{TEMPORARY_PREFIX}4567"}
    storage.remove_leftovers(str(tmp_path / "fresh"))
    assert not (tmp_path / "fresh").exists()
    storage.remove_leftovers(str(tmp_path / "absent"))


def test_nothing_is_left_behind(storage: Storage, tmp_path: Path):
    storage.write_bytes(str(tmp_path / "a"), b"1")
    storage.create_bytes(str(tmp_path / "a"), b"2")
    with pytest.raises(PathConflict):
        storage.write_bytes(str(tmp_path / "a" / "b"), b"3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PathConflict):
        storage.write_bytes(str(tmp_path / "folder"), b"3")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "folder"]


def test_many_objects_are_removed_and_others_stay(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage_module, "DELETED_AT_ONCE", 3)
    for number in range(8):
        storage.write_bytes(join(str(tmp_path), f"{number}"), b"x")
    gone = [join(str(tmp_path), f"{number}") for number in range(7)]
    storage.delete_all([*gone, gone[0], join(str(tmp_path), "never there")])
    assert [found.key for found in storage.list_objects(str(tmp_path))] == ["7"]
    storage.delete_all([])


def test_a_missing_prefix_is_empty(storage: Storage, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    assert keys(storage, tmp_path / "nowhere") == []
    assert keys(storage, tmp_path / "file") == []


def test_readers_never_see_a_part(tmp_path: Path):
    uri, store, seen = str(tmp_path / "file"), LocalStore(), set()
    versions = [bytes([letter]) * 300_000 for letter in b"ab"]
    store.write(uri, versions[0])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            data = store.read(uri)
            assert data in versions, "a reader saw a part"
            seen.add(data[:1])

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for turn in range(150):
                store.write(uri, versions[turn % 2])
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert seen == {b"a", b"b"}


@pytest.fixture(params=["hard links", "no hard links"])
def with_or_without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails as on a file system without hard links, such as FAT."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("with_or_without_links")
@pytest.mark.parametrize("turn", range(5))
def test_one_of_many_creators_wins(storage: Storage, tmp_path: Path, turn: int):
    uri, start = str(tmp_path / "new" / "file"), threading.Barrier(16)

    def create(number: int) -> bool:
        start.wait()
        return storage.create_bytes(uri, b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert storage.read_bytes(uri) == b"%d" % won.index(True)
    assert keys(storage, tmp_path / "new") == ["file"]


@pytest.mark.usefixtures("with_or_without_links")
def test_a_created_file_is_complete_when_it_appears(storage: Storage, tmp_path: Path):
    data, stop = b"x" * 2_000_000, threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for found in storage.list_objects(str(tmp_path)):
                assert found.size_bytes == len(data)

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        try:
            for number in range(40):
                assert storage.create_bytes(str(tmp_path / str(number)), data)
        finally:
            stop.set()
        watcher.result()


def test_absence(storage: Storage, tmp_path: Path):
    uri = str(tmp_path / "no" / "such")
    for operation in (storage.read_bytes, storage.stat, lambda uri: storage.read_head(uri, 3)):
        with pytest.raises(ObjectNotFound):
            operation(uri)
    assert not storage.exists(uri)
    storage.delete(uri)
    storage.write_bytes(uri, b"")
    assert storage.exists(uri) and storage.read_head(uri, 3) == b""
    storage.delete(uri)
    assert not storage.exists(uri)
    with pytest.raises(ObjectNotFound):
        storage.stat(str(tmp_path))
    assert not storage.exists(str(tmp_path / "no"))


def test_what_cannot_be_opened_is_a_conflict_and_does_not_block(storage: Storage, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for uri in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / ("n" * 300), str(tmp_path) + "/\0"):
        with pytest.raises((PathConflict, ObjectNotFound)):
            storage.read_bytes(str(uri))
        with pytest.raises((PathConflict, ObjectNotFound)):
            storage.read_head(str(uri), 10)
    for name in ("n" * 300, "\0"):
        with pytest.raises(PathConflict):
            storage.write_bytes(f"{tmp_path}/{name}", b"")
    with pytest.raises(PathConflict):
        keys(storage, tmp_path / ("n" * 300))


def test_a_full_disk_is_not_a_conflict_and_not_retried(storage: Storage):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError) as caught, Path("/dev/full").open("wb", buffering=0) as full:
        from stylemill.storage.local import _translated_errors

        with _translated_errors("/dev/full"):
            full.write(b"x")
    assert type(caught.value) is StorageError and "space" in str(caught.value)


DENIED = """
import sys
from stylemill.errors import AccessDenied
from stylemill.storage import Storage
shut, storage, denied = sys.argv[1] + "/shut", Storage(), []
for attempt in (
    lambda: storage.read_bytes(shut + "/file"),
    lambda: storage.exists(shut + "/file"),
    lambda: storage.write_bytes(shut + "/new", b""),
    lambda: storage.create_bytes(shut + "/new", b""),
    lambda: list(storage.list_objects(sys.argv[1])),
    lambda: list(storage.list_objects(shut + "/in")),
):
    try:
        attempt()
    except AccessDenied:
        denied.append(attempt)
print(len(denied))
"""


def test_permissions(tmp_path: Path, run_bound_by_permissions):
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "file").write_bytes(b"x")
    (tmp_path / "shut").chmod(0)
    try:
        answer = run_bound_by_permissions(DENIED, str(tmp_path))
    finally:
        (tmp_path / "shut").chmod(0o700)
    assert answer.stdout.strip() == "6", answer.stderr


RESUMED = """
import sys
from stylemill.errors import AccessDenied
from stylemill.storage import Storage
for after in sys.argv[2:]:
    try:
        print([item.key for item in Storage().list_objects(sys.argv[1], after, with_denied=True)])
    except AccessDenied as error:
        print("denied", "resume" in str(error))
"""


def test_a_listing_that_resumes_inside_a_folder_that_is_shut_now_stops(tmp_path: Path, run_bound_by_permissions):
    (tmp_path / "in" / "shut").mkdir(parents=True)
    for name in ("in/shut/a", "in/shut/b", "z"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "in" / "shut").chmod(0)
    try:
        answer = run_bound_by_permissions(RESUMED, str(tmp_path), "in/shut/a", "in/shut/", "in/a")
    finally:
        (tmp_path / "in" / "shut").chmod(0o700)
    assert answer.stdout.split("\n")[:3] == ["denied True", "['z']", "['in/shut/', 'z']"], answer.stderr


def test_a_storage_can_be_pickled(tmp_path: Path):
    options = StorageOptions(endpoint_url="http://h:1", retry_deadline_s=3.0)
    storage = Storage(options)
    storage.write_bytes(str(tmp_path / "a"), b"1")
    again = pickle.loads(pickle.dumps(storage))  # noqa: S301 (our own)
    assert again.options == options and again.read_bytes(str(tmp_path / "a")) == b"1"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"endpoint_url": "host:80"}, "storage.endpoint_url"),
        ({"endpoint_url": "http://"}, "storage.endpoint_url"),
        ({"endpoint_url": "http://[::1"}, "storage.endpoint_url"),
        ({"endpoint_url": "http://host:port"}, "storage.endpoint_url"),
        ({"endpoint_url": "http://me:secret@host"}, "storage.endpoint_url"),
        ({"retry_deadline_s": 0.0}, "storage.retry_deadline_s"),
        ({"timeout_s": float("nan")}, "storage.timeout_s"),
    ],
)
def test_options_are_checked_and_secrets_not_shown(changes: dict, field: str):
    with pytest.raises(ConfigError) as caught:
        StorageOptions(**changes)
    assert caught.value.field == field and "secret" not in str(caught.value)


def test_denied_is_a_storage_error():
    assert issubclass(AccessDenied, StorageError) and issubclass(PathConflict, StorageError)


def test_a_lock_file_that_was_removed_while_it_was_held_locks_nobody_out_and_lets_nobody_in(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr("os.link", no_links)
    lock = tmp_path / f"{TEMPORARY_PREFIX}lock"
    with lock.open("wb") as held, ThreadPoolExecutor(8) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = [pool.submit(storage.create_bytes, str(tmp_path / "one"), bytes([number])) for number in range(4)]
        time.sleep(0.3)  # they wait for the lock of the file that is removed now
        lock.unlink()
        waiting += [pool.submit(storage.create_bytes, str(tmp_path / "one"), bytes([number])) for number in range(4, 8)]
        time.sleep(0.3)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert sum(future.result() for future in waiting) == 1
