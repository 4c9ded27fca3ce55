"""A committed manifest as Ray Data reads it."""

from __future__ import annotations

from pathlib import Path

import ray

from stylemill.manifest.read import read_manifest
from stylemill.storage import Storage
from tests.committed import commit_run


def test_ray_reads_the_same_rows(local_ray: str, tmp_path: Path):
    layout = commit_run(Storage(), str(tmp_path), styles=("dunes", "waves"), failed={"d.jpg"})
    wanted = read_manifest(Storage(), layout)
    dataset = ray.data.read_parquet(layout.manifest_uri)  # must not stumble over _SUCCESS
    assert dict(zip(dataset.schema().names, dataset.schema().types, strict=True)) == {
        field.name: field.type for field in wanted.schema
    }
    assert sorted(dataset.take_all(), key=lambda row: (row["key"], row["style"])) == wanted.to_pylist()
