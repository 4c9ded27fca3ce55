"""A prepared run, and its stages called in this process without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylemill.images.options import DecodeOptions
from stylemill.manifest.schema import MANIFEST_SCHEMA, make_table
from stylemill.storage import Storage, StorageOptions
from stylemill.storage.sources import find_sources
from stylemill.storage.uri import scheme
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.plan import TwinFinder, plan_row
from stylemill.stylizing.preflight import PreparedRun, prepare
from stylemill.stylizing.read import Reader
from stylemill.stylizing.write import Writer
from tests.drawn import image_bytes

Rows = dict[tuple[str, str], dict[str, Any]]
"""Manifest rows by key and style."""


@pytest.fixture
def run(style_file: Path, second_style_file: Path, tmp_path: Path) -> PreparedRun:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image_bytes(20, 30))
    models = (str(style_file), str(second_style_file))
    return prepare(StylizeConfig(model=models, input=str(tmp_path / "in"), out=str(tmp_path / "out")))


@pytest.fixture
def paint(run: PreparedRun) -> Callable[..., Rows]:
    """Return a function that paints the input folder as it is now, without Ray: rows by key and style."""
    uris: list[str] = []  # what the actors of a run find in its plan
    storage = Storage(StorageOptions(retry_deadline_s=20.0, timeout_s=2.0), web_witnesses=lambda: uris)
    reader = Reader(storage, DecodeOptions(isolate_decoding=False, max_source_bytes=10**6))
    painter = Painter(storage, run.layout, run.identity, run.config)
    writer = Writer(storage, run.layout, run.identity, run.config.encode)

    def all_rows(input: str = run.identity.input, backwards: bool = False) -> Rows:
        twins = TwinFinder()
        planned = [plan_row(twins.add(found)) for found in find_sources(storage, input)]
        uris[:] = [row["uri"] for row in planned if scheme(row["uri"]).startswith("http")]
        rows = [row for one in planned[:: -1 if backwards else 1] for row in writer(painter(reader(one)))]
        make_table(rows, MANIFEST_SCHEMA)
        return {(row["key"], row["style"]): row for row in rows}

    return all_rows


def errors(rows: Rows) -> dict[str, str | None]:
    """Return the error type of each key's row in the style ``waves``."""
    return {key: row.get("error_type") for (key, style), row in rows.items() if style == "waves"}
