"""The bulk flow from a bucket into a bucket, over the real protocol; credentials only in the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import read_manifest
from stylemill.storage import Storage, join
from tests.drawn import image_bytes
from tests.integration.conftest import fill, rows_of

SECRET = "testing"  # what the service on loopback was started with

FILES = {
    "a.jpg": image_bytes(40, 30, 1),
    "deep/é 日本 +%20.png": image_bytes(20, 44, 2, "PNG"),
    "line\nbreak.jpg": image_bytes(20, 21, 3),
    "a.jpg/below a file.jpg": image_bytes(22, 21, 4),
    "double//slash.jpg": image_bytes(20, 20, 5),
    "../up.jpg": image_bytes(20, 20, 6),
    "notes.txt": b"words " * 30,
    "corrupt.jpg": image_bytes(60, 60, 7)[:300],
}
ERRORS = {"double//slash.jpg": "BadKey", "../up.jpg": "BadKey", "notes.txt": "Text", "corrupt.jpg": "Truncated"}


@pytest.fixture
def bucket(s3_bucket: str, style_file: Path) -> str:
    storage = Storage()
    storage.write_bytes(f"{s3_bucket}/styles/waves.safetensors", style_file.read_bytes())
    for key, data in FILES.items():
        storage.write_bytes(join(s3_bucket, "photos", key), data)
    return s3_bucket


def all_bytes(bucket: str) -> dict[str, bytes]:
    storage = Storage()
    return {found.key: storage.read_bytes(found.uri) for found in storage.list_objects(bucket)}


def test_from_a_bucket_into_a_bucket(
    bucket: str, s3_service: dict[str, str], stylemill: Callable[..., Any], paint: Callable[..., Any], tmp_path: Path
):
    endpoint = s3_service["AWS_ENDPOINT_URL"]
    # The endpoint is in the config, the credentials only in the environment; the command starts its own cluster.
    environment = {**s3_service, "AWS_ENDPOINT_URL": ""}
    arguments = (
        *("stylize", "--model", f"{bucket}/styles/waves.safetensors", "--input", f"{bucket}/photos/"),
        *("--out", f"{bucket}/painted", "--run-id", "mine"),
        *("--storage.endpoint-url", endpoint),
    )
    answer = stylemill(*arguments, **environment)
    assert answer.returncode == 3, answer.stderr
    assert SECRET not in answer.stdout + answer.stderr

    storage, layout = Storage(), RunLayout(out=f"{bucket}/painted", run_id="mine")
    rows = {row["key"]: row for row in read_manifest(storage, layout).to_pylist()}
    assert sorted(rows) == sorted(FILES)
    assert {key: row["error_type"] for key, row in rows.items() if row["error_type"]} == ERRORS

    before = all_bytes(f"{bucket}/painted")
    assert endpoint in before["runs/mine/config.yaml"].decode()
    for key, data in before.items():
        assert b"test:tester" not in data, f"the access key is in {key}"
        assert SECRET.encode() not in data, f"the secret is in {key}"

    again = stylemill(*arguments, **environment)
    assert again.returncode == 0 and "already committed" in again.stdout, again.stderr
    assert all_bytes(f"{bucket}/painted") == before
    audit = stylemill("manifest", "verify", layout.manifest_uri, **s3_service)
    assert audit.returncode == 0 and "is sound" in audit.stdout, audit.stdout + audit.stderr

    done = [key for key, row in rows.items() if row["status"] == "ok"]
    files = {f"{number}{Path(key).suffix}": FILES[key] for number, key in enumerate(done)}
    local = rows_of(paint(fill(tmp_path / "in", files), tmp_path / "out"))
    assert [rows[key]["output_sha256"] for key in done] == [row["output_sha256"] for row in local]
