from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylemill.errors import ConfigError
from stylemill.storage.uri import is_glob, is_inside, join, key_problem, name, parent, resolve, scheme


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/k", "s3"),
        ("S3://b/k", "s3"),
        ("/a/b", "file"),
        ("a/b", "file"),
        ("file:///a", "file"),
        ("/a://b", "file"),
        ("C:x", "file"),
        ("memory://x", "memory"),
        ("://x", "file"),
        ("", "file"),
    ],
)
def test_scheme(uri: str, expected: str):
    assert scheme(uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b/", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("s3://b/k/", "s3://b/k"),
        ("S3://B/K%20x", "s3://B/K%20x"),
        ("s3://b/a/../c", "s3://b/a/../c"),
        ("s3://b/a//c", "s3://b/a//c"),
        ("s3://b/a@c", "s3://b/a@c"),
        ("/a/ b \n", "/a/ b \n"),
        ("/a b#?%", "/a b#?%"),
        ("abfss://box@account/x", "abfss://box@account/x"),
    ],
)
def test_locations_are_normalised(uri: str, expected: str):
    assert resolve(uri) == expected
    assert resolve(resolve(uri)) == expected


def test_bare_paths_belong_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve("x/y") == f"{tmp_path}/x/y"
    assert resolve(".") == str(tmp_path)
    assert resolve("~/x") == "/home/me/x"
    assert resolve("~nobody-of-this-name/x") == f"{tmp_path}/~nobody-of-this-name/x"


@pytest.mark.parametrize(
    "uri", ["", "s3://key:secret@bucket/x", "https://me:secret@host/x", "/x\udcff", "s3://b/\ud800"]
)
def test_invalid_locations(uri: str):
    with pytest.raises(ConfigError) as caught:
        resolve(uri)
    assert "secret" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    "uri",
    ["s3:/bucket/x", "file:/a/b", "GS:/x", " s3://bucket/x", "simplecache::s3://b/x", "s3+fips://b/x", "https:/h/x"],
)
def test_mistyped_uris_are_refused(uri: str):
    with pytest.raises(ConfigError, match="SCHEME://"):
        resolve(uri)
    assert resolve(f"./{uri}") == str(Path(uri).absolute())
    assert resolve(f"/{uri}") == str(Path(f"/{uri}"))


def test_join_encodes_nothing():
    assert join("s3://b/", "a b", "/c%2F#?/") == "s3://b/a b/c%2F#?"
    assert join("/x", "a", "b") == "/x/a/b"


def test_name_and_parent():
    assert (name("s3://b/k/x.jpg"), parent("s3://b/k/x.jpg")) == ("x.jpg", "s3://b/k")
    assert (name("/a"), parent("/a")) == ("a", "/")
    assert parent("/") == "/"


def test_inside():
    assert is_inside("/a/b", "/a") and is_inside("/a", "/a") and is_inside("/a", "/")
    assert not is_inside("/ab", "/a") and not is_inside("/a", "/a/b")


def test_globs():
    assert is_glob("/a/*.jpg") and is_glob("/a/b?") and is_glob("/[ab]") and not is_glob("/a/b")


@pytest.mark.parametrize("key", ["/a", "..", "a/..", "../a", "a/../b", ".", "a/./b", "a//b", "", "a/", "a\0b"])
def test_keys_that_cannot_be_mirrored(key: str):
    assert key_problem(key)


@pytest.mark.parametrize(
    "key", ["a", "a/b", "...", "..a", "a..", ".hidden", "é/ü", " ", "a\nb", "%2e%2e/a", "a\\..\\b"]
)
def test_keys_that_can(key: str):
    assert key_problem(key) is None


@given(st.text(st.sampled_from("a./\\\0"), max_size=8))
def test_a_key_without_problem_stays_below_the_root(key: str):
    if key_problem(key) is None:
        whole = Path(join("/root/of/all", key))
        assert Path("/root/of/all") in whole.parents
        assert str(whole) == f"/root/of/all/{key}" == resolve(str(whole))
