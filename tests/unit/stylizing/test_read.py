"""Sources that cannot be read or decoded become rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stylemill.stylizing.preflight import PreparedRun
from tests.drawn import image_bytes
from tests.unit.stylizing.conftest import errors


def test_bad_sources_are_rows(run: PreparedRun, paint: Callable):
    folder = Path(run.identity.input)
    (folder / "empty.png").write_bytes(b"")
    (folder / "large.jpg").write_bytes(image_bytes(20, 20) + bytes(10**6))
    (folder / "words.jpg").write_bytes(b"words " * 50)
    (folder / "cut.jpg").write_bytes(image_bytes(80, 80)[:400])
    rows = paint()
    assert errors(rows) == {
        "a.jpg": None,
        "cut.jpg": "Truncated",
        "empty.png": "EmptyFile",
        "large.jpg": "TooLarge",
        "words.jpg": "Text",
    }
    assert rows["words.jpg", "dunes"]["status"] == "skipped" and rows["cut.jpg", "dunes"]["status"] == "failed"
    assert [path.name for path in Path(run.layout.images_uri("waves")).iterdir()] == ["a.jpg"]


def test_a_source_of_unknown_size_is_looked_at_before_it_is_fetched(run: PreparedRun, paint: Callable, tmp_path: Path):
    (tmp_path / "large").write_bytes(image_bytes(20, 20) + bytes(10**6))
    (tmp_path / "small").write_bytes(image_bytes(20, 20))
    uris = [str(tmp_path / name) for name in ("large", "small", "gone")]
    pq.write_table(pa.table({"uri": uris, "key": ["large", "small", "gone"]}), tmp_path / "list.parquet")
    assert errors(paint(str(tmp_path / "list.parquet"))) == {
        "large": "TooLarge",
        "small": None,
        "gone": "SourceVanished",
    }
