from __future__ import annotations

import datetime as dt
import io
import re
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, PLAN_SCHEMA, from_parquet, make_table, to_parquet
from stylemill.storage import Storage
from tests.committed import commit_run, row

LAYOUT = RunLayout(out="/out", run_id="r")

DESIGN = """key, source_uri, source_bytes, source_etag, source_sha256, source_format, source_width_px, source_height_px,
status, error_type, error, output_uri, output_bytes, output_sha256, output_format, width_px, height_px, style,
style_version, model_sha256, fingerprint, forward, run_id, attempt, decode_ms, stylize_ms, encode_ms, finished_at"""


def test_the_columns_are_those_of_the_design():
    wanted = [name.strip() for name in DESIGN.split(",")]
    assert [name for name in MANIFEST_SCHEMA.names if name in wanted] == wanted
    assert set(MANIFEST_SCHEMA.names) - set(wanted) <= {"note"}


def test_every_column_has_a_type_even_when_it_holds_nothing():
    empty = {name: None for name in MANIFEST_SCHEMA.names if MANIFEST_SCHEMA.field(name).nullable}
    for rows in ([], [{**row(LAYOUT, "a"), **empty}]):
        table = from_parquet(to_parquet(make_table(rows, MANIFEST_SCHEMA)), MANIFEST_SCHEMA)
        assert table.schema.equals(MANIFEST_SCHEMA)
        assert not any(pa.types.is_null(kind) for kind in table.schema.types)
        assert table.num_rows == len(rows)


def test_rows_survive_a_round_trip():
    rows = [
        row(LAYOUT, "é\n'💡"),
        row(LAYOUT, "b", status="failed", error_type="Truncated", error="x" * 5000, note="n"),
    ]
    again = from_parquet(to_parquet(make_table(rows, MANIFEST_SCHEMA)), MANIFEST_SCHEMA).to_pylist()
    assert [{name: one[name] for name in given} for one, given in zip(again, rows, strict=True)] == rows
    assert again[0]["finished_at"] == dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def test_the_bytes_of_equal_rows_are_equal():
    rows = [row(LAYOUT, str(number)) for number in range(50)]
    assert to_parquet(make_table(rows, MANIFEST_SCHEMA)) == to_parquet(make_table(rows, MANIFEST_SCHEMA))


def test_unknown_columns_and_wrong_types_are_errors():
    with pytest.raises(ValueError, match="colour"):
        make_table([{**row(LAYOUT, "a"), "colour": 1}], MANIFEST_SCHEMA)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        make_table([{**row(LAYOUT, "a"), "width_px": "wide"}], MANIFEST_SCHEMA)


def test_other_content_is_an_error():
    other = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), other)
    for data in (b"", b"PAR1", b"words", other.getvalue(), to_parquet(PLAN_SCHEMA.empty_table())):
        with pytest.raises(ValueError):
            from_parquet(data, MANIFEST_SCHEMA)


def test_all_the_usual_readers_read_the_same_rows(tmp_path: Path):
    # No row of the first part has an error, none of the second an output: nullable columns keep their types.
    layout = commit_run(Storage(), str(tmp_path), styles=("dunes", "waves"), failed={"d.jpg"})
    folder = Path(layout.manifest_uri)
    files = f"{folder}/part-*.parquet"
    wanted = [(key, style) for key in ("a.jpg", "b/c.jpg", "d.jpg") for style in ("dunes", "waves")]
    query = f"select key, style, output_bytes, epoch_us(finished_at) from '{files}' order by key, style"
    by_duckdb = duckdb.sql(query).fetchall()
    assert [found[:2] for found in by_duckdb] == wanted
    frame = pd.concat([pd.read_parquet(part) for part in sorted(folder.glob("*.parquet"))], ignore_index=True)
    assert list(zip(frame["key"], frame["style"], strict=True)) == wanted
    assert [None if pd.isna(size) else size for size in frame["output_bytes"]] == [found[2] for found in by_duckdb]
    assert pd.read_parquet(folder)["key"].tolist() == frame["key"].tolist()
    assert {found[3] for found in by_duckdb} == {int(dt.datetime(2026, 3, 1, tzinfo=dt.UTC).timestamp() * 1e6)}
    assert str(frame["finished_at"].dtype.tz) == "UTC"
    dataset = pyarrow.dataset.dataset(folder, format="parquet")  # must not stumble over _SUCCESS
    assert dataset.schema.equals(MANIFEST_SCHEMA, check_metadata=False)
    table = dataset.to_table().sort_by([("key", "ascending"), ("style", "ascending")])
    assert list(zip(table["key"].to_pylist(), table["style"].to_pylist(), strict=True)) == wanted


def test_every_column_and_every_error_type_of_a_row_is_explained_to_readers():
    root = Path(__file__).parents[3]
    page = (root / "docs/manifest.md").read_text()
    assert [column for column in MANIFEST_SCHEMA.names if f"`{column}`" not in page] == []
    explained = page + (root / "docs/images.md").read_text()
    rooms = ("images", "nn", "storage", "stylizing")
    code = "\n".join(
        path.read_text() for room in rooms for path in (root / "pipeline" / "stylemill" / room).rglob("*.py")
    )
    types = set(re.findall(r'(?:ImageError|NotAnImage)\(\s*"([A-Z]\w+)"', code))
    types |= set(re.findall(r'0, "", "([A-Z]\w+)"', code))
    assert len(types) > 15 and {one for one in types if f"`{one}`" not in explained} == set()
