"""Runs that paint each source in one of several styles: by its key, its folder, or a column of its list."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError, StorageError
from stylemill.images.options import EncodeOptions
from stylemill.manifest.commit import commit_part, write_pending, write_shard
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import read_manifest
from stylemill.manifest.schema import PLAN_SCHEMA, from_parquet, make_table, to_parquet
from stylemill.storage import Storage, StorageOptions
from stylemill.storage.store import ObjectStat
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import check, prepare
from stylemill.stylizing.preview import survey
from stylemill.stylizing.run import BulkResult, stylize
from stylemill.stylizing.style_rule import StyleRule
from tests.drawn import image_bytes
from tests.unit.test_style_file import merged, relatives

STYLES = ("wave", "ink", "gold")
Paint = Callable[..., BulkResult]


def found(key: str, label: str | None = None) -> ObjectStat:
    return ObjectStat(f"/in/{key}", key, 1, "e", label=label)


def test_keys_decide_by_a_seeded_hash_that_is_the_same_everywhere():
    keys = [f"photo {number}.jpg" for number in range(300)]
    chosen = [StyleRule(by="key").choose(found(key), STYLES)[0] for key in keys]
    assert chosen[:6] == ["ink", "wave", "ink", "wave", "ink", "ink"]
    assert min(Counter(chosen).values()) > 75
    assert chosen != [StyleRule(by="key", seed=1).choose(found(key), STYLES)[0] for key in keys]


def test_folders_and_columns_name_the_style():
    assert StyleRule(by="folder").choose(found("ink/a/b.jpg"), STYLES) == ("ink", None)
    assert StyleRule(by="column:look").choose(found("a.jpg", "gold"), STYLES) == ("gold", None)
    assert StyleRule().choose(found("ink/a.jpg"), STYLES) == (None, None)
    for rule, source, said in (
        ("folder", found("clay/a.jpg"), "its first folder says 'clay', which is none of the styles wave, ink, gold"),
        ("folder", found("a.jpg"), "its first folder says nothing"),
        ("column:look", found("a.jpg"), "the column look says nothing"),
    ):
        style, problem = StyleRule(by=rule).choose(source, STYLES)
        assert style == "wave" and problem is not None and problem.startswith(said)


@pytest.mark.parametrize("by", ["", "hash", "column", "column:", "column: ", "keys"])
def test_other_rules_are_refused(by: str):
    with pytest.raises(ConfigError) as caught:
        StylizeConfig(model=("m",), input="i", out="o", style_by=by)
    assert caught.value.field == "style_by"


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Return a function that runs a job over ``in/`` in this machine's processes."""
    (tmp_path / "in").mkdir()
    (tmp_path / "many.safetensors").write_bytes(merged(*relatives(*STYLES)))

    def run(**changes: Any) -> BulkResult:
        fields = {"model": (str(tmp_path / "many.safetensors"),), "input": str(tmp_path / "in"), "num_actors": 1}
        config = StylizeConfig(**{**fields, "out": str(tmp_path / "out"), "runner": "local", **changes})
        return stylize(prepare(config))

    return run


def rows_of(result: BulkResult) -> list[dict[str, Any]]:
    return read_manifest(Storage(), result.layout).to_pylist()


def add(folder: Path, *keys: str, seed: int = 0) -> None:
    for number, key in enumerate(keys):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(image_bytes(24, 30, seed + number, format="PNG" if key.endswith("png") else "JPEG"))


def styles_of(result: BulkResult) -> dict[str, str]:
    rows = rows_of(result)
    assert len({row["key"] for row in rows}) == len(rows), "each source has one row"
    return {row["key"]: row["style"] for row in rows}


def assert_sound(result: BulkResult) -> None:
    assert verify(StorageOptions(), result.layout, with_ray=False).problems == []


def test_each_source_is_painted_once_in_the_style_of_its_key(tmp_path: Path, paint: Paint):
    keys = [f"{number}.jpg" for number in range(8)]
    add(tmp_path / "in", *keys)
    first = paint(style_by="key", style_seed=3)
    expected = {key: StyleRule(by="key", seed=3).choose(found(key), sorted(STYLES))[0] for key in keys}
    assert styles_of(first) == expected
    for key, style in expected.items():
        assert [path.parent.name for path in (tmp_path / "out" / "images").rglob(key)] == [style]
    assert_sound(first)
    assert paint(style_by="key", style_seed=3).already_committed
    # In all styles at once each has the same bytes.
    whole = {(row["key"], row["style"]): row["output_sha256"] for row in rows_of(paint(out=str(tmp_path / "all")))}
    assert all(whole[row["key"], row["style"]] == row["output_sha256"] for row in rows_of(first))
    assert styles_of(paint(style_by="key", style_seed=4)) != expected


def test_folders_name_styles_and_one_that_names_none_is_a_row(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "ink/a.jpg", "gold/b.jpg", "clay/c.jpg", "d.jpg")
    result = paint(style_by="folder", max_failed_fraction=1.0)
    rows = {row["key"]: row for row in rows_of(result)}
    assert {key: (row["status"], row["style"], row["error_type"]) for key, row in rows.items()} == {
        "ink/a.jpg": ("ok", "ink", None),
        "gold/b.jpg": ("ok", "gold", None),
        "clay/c.jpg": ("failed", "gold", "UnknownStyle"),
        "d.jpg": ("failed", "gold", "UnknownStyle"),
    }
    assert_sound(result)


def write_list(path: Path, rows: dict[str, str], folder: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "key", "look"])
        writer.writerows((str(folder / key), key, look) for key, look in rows.items())


def test_a_column_names_styles_and_what_changes_there_is_painted_again(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    looks, path = {"a.jpg": "ink", "b.jpg": "gold", "c.jpg": "ink"}, tmp_path / "list.csv"
    write_list(path, looks, tmp_path / "in")
    settings = {"input": str(path), "style_by": "column:look"}
    assert styles_of(paint(**settings)) == looks
    write_list(path, looks | {"c.jpg": "wave"}, tmp_path / "in")
    again = paint(**settings, incremental=True)
    assert styles_of(again) == {"c.jpg": "wave"}
    assert_sound(again)
    with pytest.raises(ConfigError, match="has no column mood, only uri, key, look"):
        paint(input=str(path), style_by="column:mood", out=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="is no list with a column look"):
        paint(style_by="column:look", out=str(tmp_path / "other"))


def test_new_sources_and_failed_ones_keep_the_rule(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "ink/a.jpg")
    (tmp_path / "in" / "ink" / "b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    paint(style_by="folder", max_failed_fraction=1.0)
    add(tmp_path / "in", "ink/b.jpg", "gold/c.jpg")
    assert styles_of(paint(style_by="folder", incremental=True)) == {"ink/b.jpg": "ink", "gold/c.jpg": "gold"}


def test_a_corrected_list_is_followed_by_whatever_comes_next(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    path, settings = tmp_path / "list.csv", {"input": str(tmp_path / "list.csv"), "style_by": "column:look"}
    write_list(path, {"a.jpg": "typo", "b.jpg": "typo", "c.jpg": "ink"}, tmp_path / "in")
    first = paint(**settings, max_failed_fraction=1.0)
    assert [row["error_type"] for row in rows_of(first)] == ["UnknownStyle", "UnknownStyle", None]
    # Still wrong: no picture in a style that nobody asked for.
    again = paint(**settings, retry_failed=True, max_failed_fraction=1.0)
    assert [row["error_type"] for row in rows_of(again)] == ["UnknownStyle", "UnknownStyle"]
    # "gold" is the first style, which rows without a style have in the meantime.
    write_list(path, {"a.jpg": "gold", "b.jpg": "wave", "c.jpg": "typo"}, tmp_path / "in")
    retried = paint(**settings, retry_failed=True)
    assert {(row["key"], row["style"], row["status"]) for row in rows_of(retried)} == {
        ("a.jpg", "gold", "ok"), ("b.jpg", "wave", "ok"),
    }  # fmt: skip
    later = paint(**settings, incremental=True, max_failed_fraction=1.0)
    assert [(row["key"], row["error_type"]) for row in rows_of(later)] == [("c.jpg", "UnknownStyle")]
    write_list(path, {"a.jpg": "gold", "b.jpg": "wave", "c.jpg": "gold"}, tmp_path / "in")
    assert styles_of(paint(**settings, incremental=True)) == {"c.jpg": "gold"}


def test_a_failure_in_a_style_of_before_is_not_tried_again(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "a.jpg", "b.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    path, settings = tmp_path / "list.csv", {"input": str(tmp_path / "list.csv"), "style_by": "column:look"}
    write_list(path, {"a.jpg": "ink", "b.jpg": "ink"}, tmp_path / "in")
    paint(**settings, max_failed_fraction=1.0)
    add(tmp_path / "in", "b.jpg")
    write_list(path, {"a.jpg": "ink", "b.jpg": "wave"}, tmp_path / "in")
    assert styles_of(paint(**settings, incremental=True)) == {"b.jpg": "wave"}
    config = StylizeConfig(
        model=(str(tmp_path / "many.safetensors"),), out=str(tmp_path / "out"), runner="local", retry_failed=True,
        **settings,
    )  # fmt: skip
    run, models = check(config)
    assert survey(run, models, num_threads=1).num_sources == 0


def test_a_source_without_a_style_does_not_block_the_name_of_its_twin(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "a.jpg", "a.jpg.png")
    write_list(tmp_path / "list.csv", {"a.jpg": "typo", "a.jpg.png": "gold"}, tmp_path / "in")
    settings = {"input": str(tmp_path / "list.csv"), "style_by": "column:look", "max_failed_fraction": 1.0}
    result = paint(**settings, encode=EncodeOptions(format="png"))
    assert [(row["key"], row["error_type"]) for row in rows_of(result)] == [
        ("a.jpg", "UnknownStyle"), ("a.jpg.png", None),
    ]  # fmt: skip


def test_results_in_folders_of_different_styles_do_not_collide(tmp_path: Path, paint: Paint):
    add(tmp_path / "in", "a.jpg", "a.jpg.png")
    write_list(tmp_path / "list.csv", {"a.jpg": "ink", "a.jpg.png": "gold"}, tmp_path / "in")
    result = paint(input=str(tmp_path / "list.csv"), style_by="column:look", encode=EncodeOptions(format="png"))
    assert [row["status"] for row in rows_of(result)] == ["ok", "ok"]


def test_a_dry_run_counts_one_style_for_each_source(tmp_path: Path, paint: Paint):
    del paint
    add(tmp_path / "in", "a.jpg", "b.jpg")
    fields = {"model": (str(tmp_path / "many.safetensors"),), "input": str(tmp_path / "in"), "runner": "local"}
    sizes = {}
    for style_by in (None, "key"):
        run, models = check(StylizeConfig(**fields, out=str(tmp_path / "out"), style_by=style_by))
        sizes[style_by] = survey(run, models, num_threads=1).bytes_per_megapixel
    assert sizes["key"] == pytest.approx(sizes[None] / 3)


def planned(key: str, style: str | None) -> dict[str, Any]:
    return {"key": key, "uri": f"/in/{key}", "size_bytes": 1, "etag": "e", "attempt": 1, "style": style}


def test_a_row_in_another_style_than_planned_is_never_published(tmp_path: Path):
    storage, layout = Storage(), RunLayout(out=str(tmp_path), run_id="r")
    write_shard(storage, layout, 0, make_table([planned("a", "ink"), planned("b", "gold")], PLAN_SCHEMA))

    def row(key: str, style: str) -> dict[str, Any]:
        return {
            "key": key, "source_uri": f"/in/{key}", "status": "failed", "style": style, "style_version": "1",
            "model_sha256": "m", "fingerprint": "f", "run_id": "r", "attempt": 1, "finished_at": datetime.now(UTC),
        }  # fmt: skip

    write_pending(storage, layout, 0, [row("a", "ink")])
    assert commit_part(storage, layout, 0, STYLES) is None
    write_pending(storage, layout, 0, [row("b", "ink")])
    with pytest.raises(StorageError, match="not in the plan"):
        commit_part(storage, layout, 0, STYLES)


def test_plans_of_versions_without_a_style_are_read():
    table = make_table([planned("a", None)], PLAN_SCHEMA)
    early = to_parquet(table.drop_columns(["style"]))
    assert from_parquet(early, PLAN_SCHEMA, later=("style",)).equals(table)
    with pytest.raises(ValueError, match="columns differ"):
        from_parquet(to_parquet(table.drop_columns(["uri"])), PLAN_SCHEMA, later=("style",))
