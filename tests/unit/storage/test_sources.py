"""Finding sources, and drawing stratified samples of them."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylemill.errors import AccessDenied, StorageError
from stylemill.storage import Storage, StorageOptions
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


# One folder that may not be read

LISTED = """
import json, sys
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing.plan import TwinFinder, plan_row
twins = TwinFinder()
rows = [plan_row(twins.add(found)) for found in find_sources(Storage(), *sys.argv[1:])]
print(json.dumps([[row["key"], row["problem_type"], row["uri"]] for row in rows]))
"""


@pytest.fixture
def partly_shut(library: Path) -> Iterator[Path]:
    """A library with one folder that may not be listed, and one whose files may be listed and not looked at."""
    for name, mode in (("deep-shut", 0), ("names-only", 0o444)):
        (library / name).mkdir()
        (library / name / "z.jpg").write_text("z")
        (library / name).chmod(mode)
    yield library
    for name in ("deep-shut", "names-only"):
        (library / name).chmod(0o700)


def test_a_folder_that_may_not_be_read_is_a_row_and_the_rest_is_listed(partly_shut: Path, run_bound_by_permissions):
    answer = run_bound_by_permissions(LISTED, str(partly_shut))
    rows = {key: problem for key, problem, _ in json.loads(answer.stdout)}
    assert rows == dict.fromkeys(NAMES) | {"deep-shut/": "AccessDenied", "names-only/z.jpg": "AccessDenied"}
    assert list(rows) == sorted(rows)
    uris = {key: uri for key, _, uri in json.loads(answer.stdout)}
    assert uris["deep-shut/"] == f"{partly_shut}/deep-shut"
    for after in ("deep-shut/", "deep-shut", "deep/a.jpg"):  # a planner that was killed goes on
        resumed = json.loads(run_bound_by_permissions(LISTED, str(partly_shut), after).stdout)
        assert [key for key, _, _ in resumed] == [key for key in rows if key > after]


@pytest.mark.parametrize(
    ("pattern", "is_row"),
    [
        ("*.jpg", False),
        ("*/*.jpg", True),
        ("d*/*.jpg", True),
        ("e*/*.jpg", False),
        ("**/*.jpg", True),
        ("*/x/**", True),
    ],
)
def test_a_glob_has_the_folder_as_a_row_if_matches_may_be_in_it(
    partly_shut: Path, run_bound_by_permissions, pattern: str, is_row: bool
):
    answer = run_bound_by_permissions(LISTED, f"{partly_shut}/{pattern}")
    assert ("deep-shut/" in [key for key, _, _ in json.loads(answer.stdout)]) is is_row


def test_an_input_that_may_not_be_read_is_an_error(partly_shut: Path, run_bound_by_permissions):
    answer = run_bound_by_permissions(LISTED, f"{partly_shut}/deep-shut")
    assert "AccessDenied" in answer.stderr and not answer.stdout


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EACCES, "AccessDenied"), (errno.ENAMETOOLONG, "AccessDenied"), (errno.ENOENT, None), (errno.EIO, "stop")],
)
def test_what_one_folder_does_to_a_listing(
    library: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str | None
):
    scandir = os.scandir

    def faulty(path: str) -> object:
        if str(path).endswith("/deep"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", faulty)
    storage = Storage(StorageOptions(retry_deadline_s=0.2))
    if expected == "stop":  # a disk that fails is not the fault of one folder
        with pytest.raises(StorageError, match="resume"):
            list(find_sources(storage, str(library)))
        return
    problems = {item.key: item.problem_type for item in find_sources(storage, str(library))}
    whole = {name: None for name in NAMES if not name.startswith("deep/")}
    assert problems == whole | ({"deep/": expected} if expected else {})


def test_a_folder_of_an_object_store_that_may_not_be_listed_is_a_row(monkeypatch: pytest.MonkeyPatch):
    memory = fsspec.filesystem("memory")
    storage, root = Storage(StorageOptions(retry_deadline_s=0.2)), "memory://shut-folder"
    for key in ("a.jpg", "shut/b.jpg", "shut/c/d.jpg", "z.jpg"):
        storage.write_bytes(f"{root}/{key}", b"")
    ls = type(memory).ls

    def refusing(self: object, path: str, *arguments: object, **options: object) -> object:
        if path.endswith("/shut"):
            raise PermissionError(path)
        return ls(self, path, *arguments, **options)

    monkeypatch.setattr(type(memory), "ls", refusing)
    problems = [(item.key, item.problem_type) for item in find_sources(storage, root)]
    assert problems == [("a.jpg", None), ("shut/", "AccessDenied"), ("z.jpg", None)]
    assert [item.key for item in find_sources(storage, root, "shut/")] == ["z.jpg"]
    with pytest.raises(AccessDenied):
        list(storage.list_objects(root))  # of our own objects, none may be missing
