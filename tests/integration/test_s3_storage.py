"""The storage seam over the real S3 protocol, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylemill.errors import AccessDenied, ObjectNotFound, StorageError
from stylemill.storage import Storage, StorageOptions, join
from stylemill.storage import s3 as s3_module

NASTY = [
    "a",
    "a-b",
    "a.jpg",
    "a/b",
    "a/b.d/c",
    "A",
    "é",
    "e\u0301",
    "with space",
    "line\nbreak",
    "💡",
    "\uffff",
    "日本/語 .png",
]
NASTY += ["%41", "a+b", "a?b", "a#b", "a*", "[x]", "~", "'\"", "\\", "a&b<c>", " lead", "trail ", "a=b;c,d:e@f", "-rf"]


@pytest.fixture
def storage(s3_bucket: str) -> Storage:
    return Storage(StorageOptions(retry_deadline_s=5.0, timeout_s=10.0))


def keys(storage: Storage, root: str, after: str = "") -> list[str]:
    return [found.key for found in storage.list_objects(root, after)]


def test_every_name_comes_back(storage: Storage, s3_bucket: str):
    root = f"{s3_bucket}/some prefix"
    for key in NASTY:
        storage.write_bytes(join(root, key), key.encode())
    storage.write_bytes(f"{s3_bucket}/some prefix-other/x", b"")
    found = list(storage.list_objects(root))
    assert [item.key for item in found] == sorted(NASTY)
    for item in found:
        assert item.uri == join(root, item.key)
        assert storage.read_bytes(item.uri) == item.key.encode()
        stat = storage.stat(item.uri)
        assert (stat.size_bytes, stat.etag) == (item.size_bytes, item.etag) == (len(item.key.encode()), stat.etag)
    for after in ("a", "a-b", "é", "\uffff", "nothing"):
        assert keys(storage, root, after) == [key for key in sorted(NASTY) if key > after]


def test_listings_of_many_pages(storage: Storage, s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_module, "PAGE_SIZE", 4)
    names = [f"k{number:02d}" for number in range(11)]
    for name in names:
        storage.write_bytes(join(s3_bucket, "p", name), b"")
    assert keys(storage, join(s3_bucket, "p")) == names
    assert keys(storage, join(s3_bucket, "p"), "k03") == names[4:]
    assert keys(storage, s3_bucket) == [f"p/{name}" for name in names]
    assert keys(storage, join(s3_bucket, "nothing")) == []


def test_folder_markers_are_no_objects(storage: Storage, s3_bucket: str):
    client = _client()
    bucket = s3_bucket.removeprefix("s3://")
    for key in ("p/", "p/inner/", "p/inner/x", "p//odd"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    assert keys(storage, join(s3_bucket, "p")) == ["/odd", "inner/x"]


def test_many_are_removed_with_one_request_and_those_beside_them_stay(storage: Storage, s3_bucket: str):
    root = f"{s3_bucket}/many"
    uris = [join(root, f"{number:02d} é&<") for number in range(25)]
    for uri in uris:
        storage.write_bytes(uri, b"x")
    storage.delete_all([*uris[:24], join(root, "never there")])
    assert keys(storage, root) == ["24 é&<"]
    storage.delete_all(uris)
    assert keys(storage, root) == []


def test_writing_replaces_and_heads_are_short(storage: Storage, s3_bucket: str):
    uri = join(s3_bucket, "x")
    storage.write_bytes(uri, b"0123456789", durable=True)
    first = storage.stat(uri)
    assert storage.read_head(uri, 4) == b"0123" and storage.read_head(uri, 99) == b"0123456789"
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b"" == storage.read_head(uri, 4)
    assert storage.stat(uri).etag != first.etag


def test_large_objects_go_up_in_parts(storage: Storage, s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_module, "MULTIPART_FROM_BYTES", 20 * 2**20)
    data = bytes(range(256)) * (21 * 2**20 // 256)
    storage.write_bytes(join(s3_bucket, "large"), data)
    assert storage.read_bytes(join(s3_bucket, "large")) == data
    assert "-" in storage.stat(join(s3_bucket, "large")).etag, "it went up in one piece"


def test_absence(storage: Storage, s3_bucket: str):
    uri = join(s3_bucket, "nothing/here")
    for operation in (storage.read_bytes, storage.stat, lambda uri: storage.read_head(uri, 1)):
        with pytest.raises(ObjectNotFound):
            operation(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    with pytest.raises(StorageError):
        storage.read_bytes("s3://there-is-no-bucket-of-this-name/x")
    with pytest.raises(StorageError):
        keys(storage, "s3://there-is-no-bucket-of-this-name/x")


def test_of_many_creators_one_wins(s3_bucket: str):
    uri, start = join(s3_bucket, "prize"), threading.Barrier(8)
    storages = [Storage() for _ in range(8)]

    def create(number: int) -> bool:
        start.wait()
        return storages[number].create_bytes(uri, b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert storages[0].read_bytes(uri) == b"%d" % won.index(True)
    assert storages[0].create_bytes(uri, b"late") is False


def test_wrong_credentials_stop_the_job_at_once(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    Storage().write_bytes(join(s3_bucket, "x"), b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    _forget_sessions()
    storage = Storage(StorageOptions(retry_deadline_s=60.0))
    for operation in (storage.stat, storage.read_bytes, lambda uri: storage.write_bytes(uri, b"")):
        with pytest.raises(StorageError) as caught:
            operation(join(s3_bucket, "x"))
        assert not isinstance(caught.value, AccessDenied), "it is not about this one object"
        assert "Signature" in str(caught.value) and "failed" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_no_credentials_are_the_users_mistake(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _forget_sessions()
    with pytest.raises(StorageError, match="credentials"):
        Storage(StorageOptions(retry_deadline_s=60.0)).read_bytes(join(s3_bucket, "x"))


def test_the_endpoint_may_stand_in_the_options(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    import os

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    _forget_sessions()
    storage = Storage(StorageOptions(endpoint_url=endpoint, region="us-east-1"))
    storage.write_bytes(join(s3_bucket, "x"), b"1")
    assert storage.read_bytes(join(s3_bucket, "x")) == b"1"


def test_a_service_that_is_away_is_retried_until_the_deadline(s3_bucket: str):
    storage = Storage(StorageOptions(endpoint_url="http://127.0.0.1:9", retry_deadline_s=1.0, timeout_s=2.0))
    with pytest.raises(StorageError, match=r"failed \d+ times"):
        storage.read_bytes(join(s3_bucket, "x"))


@pytest.fixture(autouse=True)
def fresh_sessions() -> Iterator[None]:
    """S3 file systems are cached by their arguments; the environment that they were opened in is no argument."""
    _forget_sessions()
    yield
    _forget_sessions()


def _forget_sessions() -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def _client():
    import botocore.session

    return botocore.session.get_session().create_client("s3")
