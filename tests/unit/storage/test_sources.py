"""Finding sources, and drawing stratified samples of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylemill.errors import ConfigError
from stylemill.storage import Storage, sources
from stylemill.storage.sources import draw_sample, find_sources, glob_root, sources_root, stratum_of

NAMES = ["a.jpg", "b.png", "deep/a.jpg", "deep/er/c.jpg", "deep/b.JPG", "x[1].jpg", "with space.jpg", "é.jpg"]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "library-other").mkdir()
    (tmp_path / "library-other" / "z.jpg").write_text("z")
    return tmp_path / "library"


def found(uri: object, after: str = "") -> list[str]:
    sources = list(find_sources(Storage(), str(uri), after))
    assert [source.key for source in sources] == sorted(source.key for source in sources)
    return [source.key for source in sources]


def test_a_folder_gives_everything_below_it(library: Path):
    assert found(library) == sorted(NAMES)
    assert found(library, "deep/b.JPG") == [name for name in sorted(NAMES) if name > "deep/b.JPG"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "with space.jpg", "x[1].jpg", "é.jpg"]),
        ("?.*", ["a.jpg", "b.png", "é.jpg"]),
        ("[ab].*", ["a.jpg", "b.png"]),
        ("[!a].*", ["b.png", "é.jpg"]),
        ("deep/*", ["deep/a.jpg", "deep/b.JPG"]),
        ("*/a.jpg", ["deep/a.jpg"]),
        ("**/*.jpg", ["a.jpg", "deep/a.jpg", "deep/er/c.jpg", "with space.jpg", "x[1].jpg", "é.jpg"]),
        ("deep/**", ["deep/a.jpg", "deep/b.JPG", "deep/er/c.jpg"]),
        ("**", NAMES),
        ("x[[]1].jpg", ["x[1].jpg"]),
        ("*.gif", []),
    ],
)
def test_globs(library: Path, pattern: str, expected: list[str]):
    root = glob_root(f"{library}/{pattern}")
    stem = root[len(str(library)) :].lstrip("/")
    wanted = sorted(name[len(stem) :].lstrip("/") for name in expected)
    assert found(f"{library}/{pattern}") == wanted
    for name in wanted:
        assert found(f"{library}/{pattern}", name) == [other for other in wanted if other > name]


def test_the_root_of_a_glob():
    assert glob_root("/a/b/*.jpg") == "/a/b"
    assert glob_root("/a/b*/c/*.jpg") == "/a"
    assert glob_root("s3://b/x/**/y?") == "s3://b/x"
    assert glob_root("/a/b") == "/a/b"


def test_a_single_file_is_one_source_even_with_brackets(library: Path):
    assert found(library / "deep" / "a.jpg") == ["a.jpg"]
    assert found(library / "x[1].jpg") == ["x[1].jpg"]
    assert found(library / "a.jpg", after="a.jpg") == []


def test_a_folder_with_brackets_in_its_name_is_a_folder(tmp_path: Path):
    for name in ("Photos [2020]", "a*b", "what?"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text("a")
        assert found(tmp_path / name) == ["a.jpg"], name


def test_an_existing_location_is_its_own_root(library: Path):
    storage = Storage()
    for uri in (f"{library}/x[1].jpg", str(library), str(library / "nothing")):
        assert sources_root(storage, uri) == uri
    assert sources_root(storage, f"{library}/*.jpg") == str(library)


def test_nothing_there(tmp_path: Path):
    assert found(tmp_path / "nowhere") == []
    assert found(tmp_path) == []


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
    ],
)
def test_parquet_files_that_name_no_sources(tmp_path: Path, columns: dict):
    path = parquet(tmp_path, **columns)
    with pytest.raises(ConfigError) as caught:
        found(path)
    assert caught.value.field == "input" and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"words " * 99])
def test_files_that_are_not_parquet(tmp_path: Path, content: bytes):
    path = tmp_path / "sources.parquet"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        found(path)


def test_a_folder_named_parquet_is_a_folder(tmp_path: Path):
    (tmp_path / "x.parquet").mkdir()
    (tmp_path / "x.parquet" / "a.jpg").write_text("a")
    assert found(tmp_path / "x.parquet") == ["a.jpg"]


KEYS = [f"{folder}/{number}.jpg" for folder, num in (("cats", 80), ("dogs", 15), ("owls", 5)) for number in range(num)]


def test_strata_are_drawn_in_proportion():
    assert Counter(map(stratum_of, draw_sample(KEYS, 20, seed=1))) == {"cats": 16, "dogs": 3, "owls": 1}


def test_the_sample_depends_on_the_seed_and_survives_additions():
    assert (
        draw_sample(KEYS, 20, seed=1) == draw_sample(list(reversed(KEYS)), 20, seed=1) != draw_sample(KEYS, 20, seed=2)
    )
    before, after = set(draw_sample(KEYS, 50, seed=1)), set(draw_sample([*KEYS, "cats/new.jpg"], 50, seed=1))
    assert len(before & after) >= 48


@given(st.lists(st.text("ab/", min_size=1, max_size=6), unique=True, max_size=30), st.integers(0, 40))
def test_a_sample_has_the_requested_size_or_is_everything(keys: list[str], num: int):
    drawn = draw_sample(keys, num, seed=0)
    assert len(drawn) == len(set(drawn)) == (min(num, len(keys)) if num else len(keys))
    assert set(drawn) <= set(keys)


@pytest.mark.parametrize("rows_per_portion", [1, 3, 7, 100])
def test_a_long_list_is_sorted_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_portion: int):
    monkeypatch.setattr(sources, "ROWS_PER_PORTION", rows_per_portion)
    monkeypatch.setattr(sources, "ROWS_PER_READ", 2)
    keys = [f"{number * 7 % 20:02d}" for number in range(20)]
    uris = [f"/in/{key}" for key in keys]
    pq.write_table(pa.table({"key": keys, "uri": uris}), tmp_path / "list.parquet", row_group_size=4)
    listed = list(find_sources(Storage(), str(tmp_path / "list.parquet")))
    assert [(source.key, source.uri) for source in listed] == sorted(zip(keys, uris, strict=True))
    assert found(tmp_path / "list.parquet", "15") == ["16", "17", "18", "19"]
    pq.write_table(pa.table({"key": [*keys, keys[3]], "uri": [*uris, "/in/x"]}), tmp_path / "twice.parquet")
    with pytest.raises(ConfigError, match="twice"):
        found(tmp_path / "twice.parquet")
