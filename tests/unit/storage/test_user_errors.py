"""Storage failures as errors of the field that the location was given in."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.errors import AccessDenied, ConfigError, ObjectNotFound, PathConflict, StorageError
from stylemill.storage import Storage
from stylemill.storage.user_errors import listing_input, reading_input, writing_output


def test_an_output_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    message = r"^out='OUT': cannot be written \(.*file.*\); give a folder or a prefix in which files can be created$"
    with pytest.raises(ConfigError, match=message) as caught, writing_output("OUT"):
        Storage().write_bytes(str(tmp_path / "file" / "below"), b"")
    assert isinstance(caught.value.__cause__, PathConflict)


def test_an_output_that_the_store_refuses():
    message = r"^out='s3://OUT': cannot be written \(no\); give a location that these credentials may write$"
    with pytest.raises(ConfigError, match=message), writing_output("s3://OUT"):
        raise AccessDenied("no")


def test_other_errors_pass():
    with pytest.raises(AccessDenied), writing_output("OUT", only=PathConflict):
        raise AccessDenied("no")
    with pytest.raises(KeyError), writing_output("OUT"):
        raise KeyError


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ObjectNotFound("x"), "does not exist; give the location of an image"),
        (AccessDenied("x"), r"cannot be read \(x\); check the location and the credentials"),
    ],
)
def test_an_input_that_cannot_be_read(error: StorageError, problem: str):
    with pytest.raises(ConfigError, match=f"^image='a': {problem}$"), reading_input("image", "a", expected="an image"):
        raise error


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (AccessDenied("x"), r"cannot be read \(x\); check the credentials"),
        (StorageError("x"), r"cannot be listed \(x\); check the location and that its store answers"),
    ],
)
def test_an_input_that_cannot_be_listed(error: StorageError, problem: str):
    with pytest.raises(ConfigError, match=f"^content='a': {problem}$"), listing_input("content", "a"):
        raise error
