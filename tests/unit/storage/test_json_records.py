"""Dataclasses as JSON objects, and damaged objects."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from stylemill.errors import RegistryError, StorageError
from stylemill.storage.json_records import record_from_json, record_to_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    rows: int


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    parts: list[Inner] = field(default_factory=list)
    share: float | None = None


def test_the_bytes_keep_the_order_of_the_fields():
    record = Outer(name="café", parts=[Inner(rows=2)])
    assert (
        record_to_json(record).decode()
        == '{\n "name": "café",\n "parts": [\n  {\n   "rows": 2\n  }\n ],\n "share": null\n}'
    )
    line = b'{"name": "caf\\u00e9", "parts": [{"rows": 2}], "share": null}'
    assert record_to_json(record, indent=None, ensure_ascii=True) == line


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_to_json(Outer(name="a", share=float("nan")))


def test_a_record_is_read_back():
    def build(*, parts: list[dict], **others: object) -> Outer:
        return Outer(parts=[Inner(**part) for part in parts], **others)

    record = Outer(name="a", parts=[Inner(rows=1)], share=0.5)
    assert record_from_json(build, record_to_json(record), "u", cure="c") == record


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{", b'{"rows": 1, "more": 2}', b"{}"])
def test_damage_names_the_object_and_the_cure(data: bytes):
    with pytest.raises(StorageError, match=r"^/run/a\.json is damaged \(.*\); restore it$"):
        record_from_json(Inner, data, "/run/a.json", cure="restore it")
    with pytest.raises(RegistryError):
        record_from_json(Inner, data, "/run/a.json", cure="restore it", error_type=RegistryError)
