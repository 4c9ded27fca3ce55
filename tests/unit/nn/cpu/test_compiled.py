"""Finding the compiled kernels, and doing without them."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

from stylemill.nn.cpu import compiled
from stylemill.nn.cpu.compiled import LIBRARY, VERSION, find_library, rows_pointer

SOURCE = Path(compiled.__file__).with_name("kernels.c")
NAME = f"_kernels{EXTENSION_SUFFIXES[0]}"
DIGESTS = {
    1: "08692f4554c98ead77dff1effcba51a6693eb71b4c47251ff6b0d55ce6051977",
    2: "e4c9e1b45c1aff2cd315ff7ce289bd1cd2e752f620614f93e221db3029996713",
}
"""Of ``kernels.c``, by version."""


def test_every_change_of_the_source_has_a_version_of_its_own():
    """Otherwise an old library would be called with new arguments, or machines would compute differently unnoticed."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert DIGESTS[VERSION] == digest, "raise VERSION in kernels.c and compiled.py, and add the digest here"


def build(folder: Path, source: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "other.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / NAME, folder / "other.c"], check=True)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("int stylemill_kernels_version(void) { return 0; }", "has version 0"),
        ("int something_else(void) { return 0; }", "cannot be used"),
    ],
)
def test_a_library_of_another_version_is_not_used(tmp_path, caplog, source, problem):
    build(tmp_path, source)
    assert find_library(tmp_path) is None
    assert problem in caplog.text and "torch takes its place" in caplog.text


def test_a_library_of_another_machine_is_not_used(tmp_path, caplog):
    (tmp_path / NAME).write_bytes(b"not a library")
    assert find_library(tmp_path) is None
    assert "cannot be used" in caplog.text


def test_code_that_was_sent_without_the_library_finds_that_of_the_installation(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        compiled, "_installed", lambda names: [Path(compiled.__file__).with_name(name) for name in names]
    )
    assert (find_library(tmp_path) is None) == (LIBRARY is None)
    monkeypatch.setattr(compiled, "_installed", lambda _: [])
    with caplog.at_level(logging.INFO):
        assert find_library(tmp_path) is None
    assert "was not compiled" in caplog.text


def test_only_dense_rows_of_float32_have_a_pointer():
    rows_HWC = torch.zeros(4, 5, 8)
    assert rows_pointer(rows_HWC) == rows_HWC.data_ptr()
    assert rows_pointer(rows_HWC[::2, 1:-1]) == rows_HWC[0, 1].data_ptr()
    for other_HWC in (rows_HWC[:, ::2], rows_HWC[..., :4], rows_HWC.bfloat16(), rows_HWC.permute(1, 0, 2)):
        with pytest.raises(ValueError, match="a float32 map with dense rows"):
            rows_pointer(other_HWC)
