"""Versions, which never change; promotions, one at a time; rollbacks and deletions."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from stylemill.errors import ConfigError, RegistryError, RunConflict
from stylemill.registry import Registry, StyleReference, locate_model
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from tests.drawn import style_model


def model_bytes(version: str, name: str = "waves") -> bytes:
    return to_bytes(replace(style_model(name, seed=sum(version.encode())), version=version))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with the versions a, b and c of one style, and no champion."""
    made = Registry.create(Storage(), str(tmp_path / "registry"))
    for version in "abc":
        made.add(model_bytes(version), source_uri=f"/trained/{version}")
    return made


def promote(registry: Registry, version: str, reason: str = "better") -> int:
    champion = registry.champion("waves")
    return registry.promote("waves", version, reason=reason, over=champion.number if champion else None).number


def test_versions_are_listed_oldest_first_and_hold_the_file(registry: Registry):
    assert registry.styles() == ["waves"]
    assert [version.version for version in registry.versions("waves")] == ["a", "b", "c"]
    assert Path(registry.model_uri("waves", "b")).read_bytes() == model_bytes("b")


def test_adding_again_changes_nothing_and_another_file_is_refused(registry: Registry):
    before = registry.version("waves", "a")
    assert registry.add(model_bytes("a"), source_uri="/elsewhere") == before
    other = to_bytes(replace(style_model(seed=99), version="a"))
    with pytest.raises(ConfigError, match="never change"):
        registry.add(other, source_uri="/elsewhere")
    assert Path(registry.model_uri("waves", "a")).read_bytes() == model_bytes("a")


def test_a_half_added_version_does_not_exist_and_is_completed(registry: Registry, tmp_path: Path):
    Path(registry.model_uri("waves", "d")).parent.mkdir(parents=True)
    Path(registry.model_uri("waves", "d")).write_bytes(model_bytes("d"))  # killed before version.json
    assert [version.version for version in registry.versions("waves")] == ["a", "b", "c"]
    registry.add(model_bytes("d"), source_uri="/trained/d")
    assert [version.version for version in registry.versions("waves")] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["up/../there", ".hidden", "", "a b"])
def test_names_that_cannot_be_folders_are_refused(registry: Registry, name: str):
    with pytest.raises(ConfigError, match="cannot name a folder"):
        registry.add(model_bytes("a", name=name), source_uri="/trained/odd")


def test_promotion_and_history(registry: Registry):
    assert registry.champion("waves") is None
    assert [promote(registry, version, f"because {version}") for version in "ab"] == [1, 2]
    history = registry.history("waves")
    assert [(p.previous_version, p.version, p.kind, p.reason) for p in history] == [
        (None, "a", "promoted", "because a"),
        ("a", "b", "promoted", "because b"),
    ]
    assert json.loads(Path(registry.champion_uri("waves")).read_bytes())["version"] == "b"
    assert registry.version("waves").version == "b"


def test_promoting_the_champion_again_changes_nothing(registry: Registry):
    promote(registry, "a")
    Path(registry.champion_uri("waves")).unlink()  # killed between the promotion and its copy
    assert promote(registry, "a") == 1
    assert len(registry.history("waves")) == 1
    assert json.loads(Path(registry.champion_uri("waves")).read_bytes())["version"] == "a"


def test_a_decision_about_a_champion_that_is_gone_changes_nothing(registry: Registry):
    promote(registry, "a")
    promote(registry, "b")
    with pytest.raises(RunConflict, match="was changed meanwhile and is b"):
        registry.promote("waves", "c", reason="better than a", over=1)
    assert registry.version("waves").version == "b"
    again = registry.promote("waves", "b", reason="the retry of a killed job decides the same", over=1)
    assert (again.number, len(registry.history("waves"))) == (2, 2)


def test_of_racing_decisions_exactly_one_wins(registry: Registry):
    promote(registry, "a")
    barrier, outcomes = threading.Barrier(8), []

    def decide(version: str) -> None:
        mine = Registry.open(Storage(), registry.root)
        barrier.wait()
        try:
            outcomes.append(mine.promote("waves", version, reason=version, over=1).version)
        except RunConflict:
            outcomes.append(None)

    threads = [threading.Thread(target=decide, args=("bc"[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = {outcome for outcome in outcomes if outcome}
    # Whoever came late with the version that had just won finds it promoted; the others lost.
    assert len(registry.history("waves")) == 2 and registry.version("waves").version == winner
    assert json.loads(Path(registry.champion_uri("waves")).read_bytes())["version"] == winner


def test_rolling_back_and_forth(registry: Registry):
    for version in "abc":
        promote(registry, version)
    assert registry.rollback("waves", reason="ugly").version == "b"
    assert registry.rollback("waves", reason="uglier", to="a").version == "a"
    newest = registry.champion("waves")
    assert newest is not None and (newest.kind, newest.number, newest.previous_version) == ("rolled_back", 5, "b")


def test_rolling_back_without_an_earlier_champion_is_refused(registry: Registry):
    with pytest.raises(ConfigError, match="has no champion"):
        registry.rollback("waves", reason="none")
    promote(registry, "a")
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.rollback("waves", reason="none")
    promote(registry, "b")
    with pytest.raises(ConfigError, match="is not an earlier champion; choose one of a"):
        registry.rollback("waves", reason="never was one", to="c")
    registry.delete("waves", "a")
    with pytest.raises(ConfigError, match="was deleted"):
        registry.rollback("waves", reason="deleted", to="a")
    with pytest.raises(ConfigError, match="no earlier champion that still exists"):
        registry.rollback("waves", reason="deleted")
    assert registry.version("waves").version == "b"


def test_deleting_keeps_the_champion_and_the_records(registry: Registry):
    promote(registry, "a")
    with pytest.raises(ConfigError, match="is the champion"):
        registry.delete("waves", "a")
    registry.delete("waves", "b")
    assert [version.version for version in registry.versions("waves")] == ["a", "c"]
    assert not Path(registry.model_uri("waves", "b")).exists()
    for act in (lambda: registry.version("waves", "b"), lambda: promote(registry, "b")):
        with pytest.raises(ConfigError, match="was deleted"):
            act()
    with pytest.raises(ConfigError, match="was deleted"):
        registry.add(model_bytes("b"), source_uri="/trained/b")


def test_a_damaged_or_missing_model_is_never_promoted(registry: Registry):
    path = Path(registry.model_uri("waves", "a"))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(RegistryError, match="fails its checksum"):
        promote(registry, "a")
    Path(registry.model_uri("waves", "b")).unlink()
    with pytest.raises(RegistryError, match="is missing; restore it from /trained/b"):
        promote(registry, "b")
    assert registry.champion("waves") is None


def test_damaged_records_are_named(registry: Registry):
    promote(registry, "a")
    Path(registry.root, "waves", "promotions", "00000001.json").write_bytes(b"{")
    with pytest.raises(RegistryError, match=r"00000001\.json is damaged"):
        registry.champion("waves")


def test_registries_of_another_schema_and_places_without_one_are_refused(registry: Registry, tmp_path: Path):
    Path(registry.root, "registry.json").write_text('{"schema_version": 99}')
    with pytest.raises(ConfigError, match="has schema 99"):
        Registry.open(Storage(), registry.root)
    with pytest.raises(ConfigError, match="has schema 99"):
        Registry.create(Storage(), registry.root)
    with pytest.raises(ConfigError, match="holds no registry"):
        Registry.open(Storage(), str(tmp_path))


def test_references(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    storage = Storage()
    monkeypatch.delenv("STYLEMILL_REGISTRY", raising=False)
    assert locate_model(storage, "s3://bucket/style.safetensors", None) == "s3://bucket/style.safetensors"
    with pytest.raises(ConfigError, match="STYLEMILL_REGISTRY"):
        locate_model(storage, "registry:waves", None)
    monkeypatch.setenv("STYLEMILL_REGISTRY", registry.root)
    with pytest.raises(ConfigError, match="has no champion"):
        locate_model(storage, "registry:waves", None)
    promote(registry, "b")
    assert locate_model(storage, "registry:waves", None) == registry.model_uri("waves", "b")
    assert locate_model(storage, "registry:waves@c", registry.root) == registry.model_uri("waves", "c")
    for wrong, problem in {
        "registry:": "does not name a style",
        "registry:waves@": "does not name a style",
        "registry:x": "champion",
    }.items():
        with pytest.raises(ConfigError, match=problem):
            locate_model(storage, wrong, None)
    with pytest.raises(ConfigError, match="not in this registry"):
        locate_model(storage, "registry:waves@nope", None)
    assert StyleReference.parse("waves@b") == StyleReference(style="waves", version="b")
