"""Lists of locations: Parquet, CSV, text."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import AccessDenied, ConfigError, StorageError
from stylemill.storage import Storage, source_lists
from stylemill.storage import storage as storage_module
from stylemill.storage.sources import find_sources
from stylemill.storage.uri import key_problem


def found(uri: object, after: str = "") -> list[str]:
    sources = list(find_sources(Storage(), str(uri), after))
    assert [source.key for source in sources] == sorted(source.key for source in sources)
    return [source.key for source in sources]


def parquet(tmp_path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "sources.parquet")
    return tmp_path / "sources.parquet"


def test_a_parquet_file_names_the_sources(tmp_path: Path):
    path = parquet(tmp_path, uri=["s3://b/y.jpg", "/x/é.jpg", "file:///x/a b.jpg"], other=[1, 2, 3])
    sources = list(find_sources(Storage(), str(path)))
    assert [(source.key, source.uri) for source in sources] == [
        ("b/y.jpg", "s3://b/y.jpg"),
        ("x/a b.jpg", "/x/a b.jpg"),
        ("x/é.jpg", "/x/é.jpg"),
    ]
    assert found(path, "b/y.jpg") == ["x/a b.jpg", "x/é.jpg"]


def test_a_key_column_gives_the_names(tmp_path: Path):
    path = parquet(tmp_path, uri=["/x/1", "/x/1", "/x/2"], key=["b", "a/../up", None])
    assert found(path) == ["a/../up", "b", "x/2"]  # the plan makes a row of the bad one


def test_columns_of_every_kind_of_text(tmp_path: Path):
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        path = parquet(tmp_path, uri=pa.array(["/x/a"]).cast(kind))
        assert found(path) == ["x/a"]


@pytest.mark.parametrize(
    "columns",
    [
        {"path": ["/a"]},
        {"uri": ["/a", ""]},
        {"uri": ["/a", None]},
        {"uri": [1]},
        {"uri": [b"/a"]},
        {"uri": [["/a"]]},
        {"uri": ["/a"], "key": [1]},
        {"uri": ["/a", "/a"]},
        {"uri": ["/a", "/b"], "key": ["x", "x"]},
        {"uri": ["/a", "file:///a"]},
        {"uri": ["s3:/a", "http://me:hunter2@h/b"]},
    ],
)
def test_parquet_files_that_name_no_sources(tmp_path: Path, columns: dict):
    path = parquet(tmp_path, **columns)
    with pytest.raises(ConfigError) as caught:
        found(path)
    assert caught.value.field == "input" and str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"words " * 99])
def test_files_that_are_not_parquet(tmp_path: Path, content: bytes):
    path = tmp_path / "sources.parquet"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        found(path)


@pytest.mark.parametrize("rows_per_portion", [1, 3, 7, 100])
def test_a_long_list_is_sorted_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_portion: int):
    monkeypatch.setattr(source_lists, "ROWS_PER_PORTION", rows_per_portion)
    monkeypatch.setattr(source_lists, "ROWS_PER_READ", 2)
    keys = [f"{number * 7 % 20:02d}" for number in range(20)]
    uris = [f"/in/{key}" for key in keys]
    pq.write_table(pa.table({"key": keys, "uri": uris}), tmp_path / "list.parquet", row_group_size=4)
    listed = list(find_sources(Storage(), str(tmp_path / "list.parquet")))
    assert [(source.key, source.uri) for source in listed] == sorted(zip(keys, uris, strict=True))
    assert found(tmp_path / "list.parquet", "15") == ["16", "17", "18", "19"]
    pq.write_table(pa.table({"key": [*keys, keys[3]], "uri": [*uris, "/in/x"]}), tmp_path / "twice.parquet")
    with pytest.raises(ConfigError, match="twice"):
        found(tmp_path / "twice.parquet")


def written(tmp_path: Path, file_name: str, text: str | bytes) -> Path:
    path = tmp_path / file_name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


LINES = "# photographs of May\n\n  https://h/b.jpg?w=1\r\n\ts3://b/a,b.jpg \n#https://h/no.jpg\n/x/\u00e9 1.jpg\nhttps://h/a#1.jpg"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("file_name", ["list.txt", "list.lst", "LIST.TXT"])
def test_a_text_file_names_the_sources(tmp_path: Path, file_name: str, mark: str):
    path = written(tmp_path, file_name, mark + LINES)
    assert [(item.key, item.uri, item.problem) for item in find_sources(Storage(), str(path))] == [
        ("b/a,b.jpg", "s3://b/a,b.jpg", None),
        ("h/a#1.jpg", "https://h/a#1.jpg", None),
        ("h/b.jpg?w=1", "https://h/b.jpg?w=1", None),
        ("x/\u00e9 1.jpg", "/x/\u00e9 1.jpg", None),
    ]
    assert found(path, "h/a#1.jpg") == ["h/b.jpg?w=1", "x/\u00e9 1.jpg"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_file_names_the_sources(tmp_path: Path, mark: str):
    text = '# made by hand\r\n\r\nkey, uri,caption\r\nb,https://h/1,"a cat, ""asleep"",\r\non a mat"\r\n'
    text += '#1,"https://h/2,3.jpg",two\r\n\r\n# a comment\r\n,s3://x/y,\r\n'
    path = written(tmp_path, "list.csv", mark + text)
    assert [(item.key, item.uri) for item in find_sources(Storage(), str(path))] == [
        ("#1", "https://h/2,3.jpg"),
        ("b", "https://h/1"),
        ("x/y", "s3://x/y"),
    ]
    path = written(tmp_path, "one.csv", "uri\n/x/a\n# /x/b, perhaps\n/x/c\n")
    assert found(path) == ["x/a", "x/c"]


@pytest.mark.parametrize(
    ("file_name", "text", "message"),
    [
        ("a.csv", "", "is empty; write a header"),
        ("a.csv", "# nothing\n\n", "is empty"),
        ("a.csv", "url,key\nhttps://h/a,b\n", r"no uri column, only \['url', 'key'\]; name"),
        ("a.csv", "uri;key\nhttps://h/a;b\n", "separate columns by commas"),
        ("a.csv", "uri,uri\n/a,/b\n", "a column twice"),
        ("a.csv", "uri,key\n/a,1\n/b,2,3\n", "3 values for 2 columns in line 3; put"),
        ("a.csv", "uri,key\n/a\n", "1 values for 2 columns in line 2"),
        ("a.csv", "uri,key\n/a,1\n,2\n", "empty uri in line 3"),
        ("a.csv", "uri\n/a\n/a\n", "the key 'a' twice; name each"),
        ("a.csv", 'uri\n"/a\n' + "/b\n" * 99_999, "is not a CSV file"),
        ("a.csv", "uri\n/a\n".encode("utf-16"), "is not UTF-8"),
        ("a.txt", "/a\n/\u00e9\n".encode("latin-1"), "is not UTF-8"),
        ("a.txt", "/a\n/b\nfile:///a\n", "the key 'a' twice"),
        ("a.txt", "x" * 2_000_000, "more than 1,000,000 characters"),
        ("a.lst", "s3:/b/a\nhttp://me:hunter2@h/b\n", "in line 1 the location looks like a mistyped URI"),
    ],
)
def test_lists_that_name_no_sources(tmp_path: Path, file_name: str, text: str | bytes, message: str):
    path = written(tmp_path, file_name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        found(path)
    assert caught.value.field == "input" and str(path) in str(caught.value)


@pytest.mark.parametrize(("file_name", "text"), [("a.txt", ""), ("a.txt", "# none\n"), ("a.csv", "uri,key\n")])
def test_lists_without_entries_have_no_sources(tmp_path: Path, file_name: str, text: str):
    assert found(written(tmp_path, file_name, text)) == []  # the checks before a run say so


def test_a_location_that_no_store_can_have_is_a_problem_and_the_rest_is_listed(tmp_path: Path):
    path = written(tmp_path, "a.txt", "https://me:hunter2@h/a.jpg\nhttps://h/b.jpg\ns3:/x\n")
    items = {item.key: item for item in find_sources(Storage(), str(path))}
    assert {key: item.problem_type for key, item in items.items()} == {
        "***@h/a.jpg": "AccessDenied",
        "h/b.jpg": None,
        "s3:/x": "AccessDenied",
    }
    assert "hunter2" not in str(items) and "credential" in str(items["***@h/a.jpg"].problem)


def test_the_key_of_a_url_is_one_that_a_result_may_have(tmp_path: Path):
    (tmp_path / "list.txt").write_text("http://h/a//b.jpg\nhttp://h/a/b.jpg\nhttps://h/x?u=http://g/../c.jpg\n")
    keys = found(tmp_path / "list.txt")
    assert keys == ["h/a/_/b.jpg", "h/a/b.jpg", "h/x?u=http:/_/g/_../c.jpg"]
    assert not any(map(key_problem, keys))


def test_a_long_list_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source_lists, "ROWS_PER_PORTION", 1_000)
    monkeypatch.setattr(source_lists, "ROWS_PER_READ", 10)
    path = tmp_path / "list.txt"
    with path.open("w") as file:
        file.writelines(f"https://host-{number * 7919 % 50_000:05d}/{'x' * 80}\n" for number in range(50_000))
    tracemalloc.start()
    try:
        num_sources = sum(1 for _ in find_sources(Storage(), str(path)))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_sources == 50_000 and path.stat().st_size >= 5_000_000
    assert peak_bytes < 3_000_000


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def test_a_list_in_a_store_is_read_in_parts(memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch):
    for part_bytes in (1, 7, 16, 24, 1000):  # of 24 bytes
        monkeypatch.setattr(storage_module, "COPIED_AT_ONCE", part_bytes)
        Storage().write_bytes("memory://lists/a.csv", b"uri\r\n/x/a.jpg\r\n/x/b\r\n")
        assert found("memory://lists/a.csv") == ["x/a.jpg", "x/b"]


def test_a_list_that_is_replaced_while_it_is_read_is_not_mixed(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_module, "COPIED_AT_ONCE", 8)
    storage, store_read = Storage(), type(memory).cat_file
    storage.write_bytes("memory://lists/a.txt", b"/x/a\n/x/b\n")

    def replaced(self: fsspec.AbstractFileSystem, path: str, start: int, end: int) -> bytes:
        data = store_read(self, path, start=start, end=end)
        self.pipe_file(path, b"/y/another list\n")
        return data

    monkeypatch.setattr(type(memory), "cat_file", replaced)
    with pytest.raises(StorageError, match="was replaced"):
        list(find_sources(storage, "memory://lists/a.txt"))


def test_a_list_that_may_not_be_read_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, "a.txt", "/x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(AccessDenied):
        found(path)
