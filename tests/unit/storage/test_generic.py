"""Any other fsspec file system, tested with the one in memory."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from stylemill.errors import ConfigError, ObjectNotFound, StorageError
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
