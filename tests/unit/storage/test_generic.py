"""Any other fsspec file system, tested with the one in memory."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from stylemill.errors import AccessDenied, ConfigError, ObjectNotFound, StorageError
from stylemill.storage import Storage, StorageOptions, join

ROOT = "memory://bucket/some prefix"


@pytest.fixture
def storage() -> Iterator[Storage]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield Storage(StorageOptions(retry_deadline_s=1.0))
    memory.store.clear()


def test_objects_are_read_as_written(storage: Storage):
    uri = join(ROOT, "a b/é%20.jpg")
    storage.write_bytes(uri, b"12345", durable=True)
    assert storage.read_bytes(uri) == b"12345"
    assert storage.read_head(uri, 2) == b"12"
    found = storage.stat(uri)
    assert (found.uri, found.key, found.size_bytes) == (uri, "é%20.jpg", 5)
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_create_is_exclusive(storage: Storage):
    assert storage.create_bytes(join(ROOT, "x"), b"1") is True
    assert storage.create_bytes(join(ROOT, "x"), b"2") is False
    assert storage.read_bytes(join(ROOT, "x")) == b"1"


def test_listings(storage: Storage):
    wanted = ["a", "a-b", "a.jpg", "b/c", "b/d/e", "é", "sp ace"]
    for key in wanted:
        storage.write_bytes(join(ROOT, key), key.encode())
    storage.write_bytes(ROOT + "-other/x", b"")
    found = list(storage.list_objects(ROOT))
    assert [item.key for item in found] == sorted(wanted)
    for item in found:
        assert item.uri == join(ROOT, item.key) and storage.read_bytes(item.uri).decode() == item.key
        assert [later.key for later in storage.list_objects(ROOT, item.key)] == [
            k for k in sorted(wanted) if k > item.key
        ]
    assert list(storage.list_objects("memory://bucket/nothing")) == []


def test_absence_is_not_retried(storage: Storage):
    for operation in (storage.read_bytes, storage.stat, lambda uri: storage.read_head(uri, 1)):
        with pytest.raises(ObjectNotFound):
            operation(join(ROOT, "nothing"))


def test_a_directory_is_not_an_object(storage: Storage):
    storage.write_bytes(join(ROOT, "a/b"), b"")
    assert not storage.exists(join(ROOT, "a"))
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(join(ROOT, "a"))
    assert "failed" not in str(caught.value), "it was retried"


@pytest.mark.parametrize("uri", ["nosuchthing://a/b", "hdfs2://x", "github://x", "reference://x"])
def test_unknown_schemes_are_the_users_mistake(storage: Storage, uri: str):
    with pytest.raises(ConfigError) as caught:
        storage.read_bytes(uri)
    assert uri.partition("://")[0] in str(caught.value)


def test_a_listing_holds_one_folder_of_each_level(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    for number in range(50):
        storage.write_bytes(join(ROOT, f"{number:02d}", "deep", "a.jpg"), b"")
    memory, listed = fsspec.filesystem("memory"), []
    ls = type(memory).ls

    def counted(self: object, path: str, *arguments: object, **options: object) -> object:
        listed.append(path)
        return ls(self, path, *arguments, **options)

    monkeypatch.setattr(type(memory), "ls", counted)
    listing = storage.list_objects(ROOT, "07/deep/a.jpg")
    assert next(listing).key == "08/deep/a.jpg"
    assert len(listed) == 5, "the root, what holds the key before, and the first folder after it"
    assert len(list(listing)) == 41


def test_an_object_and_a_folder_of_one_name_are_in_order_of_key(storage: Storage):
    for key in ("a", "a-b", "a.c", "b", "b0"):
        storage.write_bytes(join(ROOT, key), b"")
    memory = fsspec.filesystem("memory")
    for key in ("a/x", "b/y"):  # the file system in memory refuses this, object stores do not
        memory.store[f"/bucket/some prefix/{key}"] = memory.store["/bucket/some prefix/b0"]
    keys = [found.key for found in storage.list_objects(ROOT)]
    assert keys == sorted(keys)


def test_objects_below_a_folder_without_a_name_are_a_problem_and_not_lost(storage: Storage):
    memory = fsspec.filesystem("memory")
    storage.write_bytes(join(ROOT, "a/y.jpg"), b"")
    memory.store["/bucket/some prefix/a//x.jpg"] = memory.store["/bucket/some prefix/a/y.jpg"]
    found = {item.key: item.problem_type for item in storage.list_objects(ROOT)}
    assert found == {"a//": "BadKey", "a/y.jpg": None}


def test_a_listing_that_resumes_inside_a_folder_that_is_shut_now_stops(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    for key in ("in/a", "in/b", "z"):
        storage.write_bytes(join(ROOT, key), b"")
    memory = type(fsspec.filesystem("memory"))
    real = memory.ls

    def ls(self: object, path: str, *args: object, **named: object) -> object:
        if path.endswith("/in"):
            raise PermissionError("forbidden")
        return real(self, path, *args, **named)

    monkeypatch.setattr(memory, "ls", ls)
    assert [found.key for found in storage.list_objects(ROOT, "in/", with_denied=True)] == ["z"]
    with pytest.raises(AccessDenied, match="resume"):
        list(storage.list_objects(ROOT, "in/a", with_denied=True))


@pytest.mark.parametrize(
    ("uri", "cure"),
    [("gopher://x/y", "such as s3://"), ("gs://x/y", r"stylemill\[gcs\]"), ("abfs://x/y", r"stylemill\[azure\]")],
)
def test_a_scheme_that_cannot_be_reached_names_its_own_cure(uri: str, cure: str, monkeypatch: pytest.MonkeyPatch):
    def missing(protocol: str, **_: object) -> None:
        raise ImportError(f"no package for {protocol}")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ConfigError, match=cure):
        Storage().read_bytes(uri)
