"""Sources that cannot be read or decoded become rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import ImageError
from stylemill.images.options import DecodeOptions
from stylemill.manifest.commit import write_shard
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import ObjectStat, Storage, hosts
from stylemill.stylizing.plan import MAX_WITNESS_SHARDS, Source, plan_row, web_locations
from stylemill.stylizing.preflight import PreparedRun
from stylemill.stylizing.read import Reader
from tests.drawn import image_bytes
from tests.unit.stylizing.conftest import errors
from tests.web import dead_url, web_server


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


def test_bad_locations_of_a_list_of_urls_are_rows(
    run: PreparedRun, paint: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hosts, "GIVE_UP_S", 0.5)
    monkeypatch.setattr(hosts, "HOST_WAIT_S", 1.5)
    dead = dead_url()
    with web_server() as web:
        bad = {
            "/status/404": "SourceVanished",
            "/status/410": "SourceVanished",
            "/status/403": "AccessDenied",
            "/loop": "RedirectLoop",
            "/endless": "TooLarge",
            "/reset": "SourceUnreachable",
        }
        uris = [web.url + path for path in ("/1.jpg", "/2.jpg", *bad)] + [f"{dead}/{number}.jpg" for number in range(9)]
        uris += ["htp://h/x.jpg", "https://me:hunter2@h/x.jpg"]
        (tmp_path / "list.txt").write_text("\n".join(uris))
        rows = paint(str(tmp_path / "list.txt"))
        root, port = web.url.partition("://")[2], dead.partition("://")[2]
        assert errors(rows) == (
            {f"{root}/1.jpg": None, f"{root}/2.jpg": None}
            | {root + path: error for path, error in bad.items()}
            | {f"{port}/{number}.jpg": "SourceUnreachable" for number in range(9)}
            | {"h/x.jpg": "AccessDenied", "***@h/x.jpg": "AccessDenied"}
        )
        assert {row["status"] for key, row in rows.items() if errors(rows)[key[0]]} == {"failed"}
        assert "hunter2" not in str(rows)


def test_a_body_is_bounded_even_if_its_size_was_known():
    """Rows that are planned again (``--retry-failed``, ``manifest repair``) have a size; the host may send more now."""
    with web_server() as web:
        reader = Reader(Storage(), DecodeOptions(max_source_bytes=10_000))
        planned = {"key": "a", "uri": f"{web.url}/endless", "size_bytes": 100, "problem_type": None}
        fetched = reader.fetch(planned)
    assert isinstance(fetched.sample.failure, ImageError) and fetched.sample.failure.error_type == "TooLarge"


def test_the_plan_names_locations_that_show_whether_the_network_works(run: PreparedRun):
    storage = Storage()
    assert list(web_locations(storage.options, run.layout)) == []
    for shard in range(40):
        uris = [f"http://host-{shard}/{number}.jpg" for number in range(50)] + ["/a.jpg", "s3://b/a.jpg"]
        rows = [plan_row(Source(found=ObjectStat(uri, f"{shard:02d}/{uri}", 0, ""))) for uri in uris]
        write_shard(storage, run.layout, shard, make_table(rows, PLAN_SCHEMA))
    named = list(web_locations(storage.options, run.layout))
    assert len(named) == len({uri.split("/")[2] for uri in named}) == MAX_WITNESS_SHARDS
    assert {"http://host-0", "http://host-39"} <= {uri.rpartition("/")[0] for uri in named}


@pytest.mark.parametrize(("name", "error_type"), [("", "AccessDenied"), ("gone.jpg", "SourceVanished")])
def test_a_folder_of_a_list_is_no_file_and_a_missing_file_has_vanished(tmp_path: Path, name: str, error_type: str):
    """A list gives no sizes; that of a folder cannot be looked up, but it is there."""
    planned = {
        "key": "a",
        "uri": str(tmp_path / name) if name else str(tmp_path),
        "size_bytes": 0,
        "problem_type": None,
    }
    failure = Reader(Storage(), DecodeOptions()).fetch(planned).sample.failure
    assert isinstance(failure, ImageError) and failure.error_type == error_type
