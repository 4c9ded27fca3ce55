"""A firing of retraining, a training run among it, over S3: no secret of its environment is in what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.storage import Storage, join
from stylemill.style_model import to_bytes
from tests.drawn import image_bytes, style_model

PLANTED = "hunter2-planted"
SECRETS = ("MY_API_KEY", "GOOGLE_TOKEN", "AZURE_STORAGE_KEY", "STYLEMILL_WEBHOOK_SECRET")
SETTINGS: dict[str, Any] = {
    "name": "waves", "steps": 6, "width": 0.125, "crop-px": 64, "batch-size": 2, "style-size-px": 64,
    "cpus-per-worker": 1, "checkpoint-every": 2, "sample-every": 3, "size-px": 64, "minimal-effect": 0.5,
}  # fmt: skip


@contextmanager
def webhook() -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes what it is sent: its URL, and requests as they came."""
    taken: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(bytes(self.headers) + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/outcome", taken
    server.shutdown()


def readable(data: bytes) -> bytes:
    """Return the bytes of a file, of a Parquet file also what its compressed pages and its metadata say.

    Pages mark where a long word may be broken; without the marks it is whole.
    """
    if data[:4] != b"PAR1":
        return data.replace(b"<wbr>", b"")
    table = pq.read_table(pa.BufferReader(data))
    return data + repr((table.schema.metadata, table.to_pylist())).encode()


@pytest.mark.slow
def test_a_firing_leaves_no_secret(
    s3_bucket: str, stylemill: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Any
):
    storage = Storage()
    storage.write_bytes(join(s3_bucket, "style.png"), image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(6):
        folder = "content" if seed < 4 else "holdout"
        storage.write_bytes(join(s3_bucket, folder, f"{seed}.jpg"), image_bytes(90, 130, seed=seed))
    champion = tmp_path / "champion.safetensors"
    champion.write_bytes(to_bytes(replace(style_model(), version="champion")))
    assert stylemill("styles", "add", champion, "--registry", join(s3_bucket, "registry"), "--promote").returncode == 0
    places = {name: join(s3_bucket, name) for name in ("registry", "out", "content", "holdout")}
    places["style-image"] = join(s3_bucket, "style.png")
    environment = {**dict.fromkeys(SECRETS, PLANTED), "STYLEMILL_LOG": "DEBUG"}
    with webhook() as (url, taken):
        flags = {**SETTINGS, **places, "start": "scratch", "webhook": url}
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        done = stylemill("retrain", *words, **environment)
    assert done.returncode == 0, done.stderr
    left = {found.key: readable(storage.read_bytes(found.uri)) for found in storage.list_objects(s3_bucket)}
    left |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode(), "webhook": b"".join(taken)}
    # What is searched is what a firing leaves: training, evaluation, decision and pages, each naming the bucket.
    files = ("config.yaml", "metrics.parquet", "state.safetensors", "evaluation.parquet", "outcomes/", "version.json")
    for name in files:
        assert any(name in key for key in left), name
    naming = [key for key, data in left.items() if s3_bucket.encode() in data]
    assert {key.rpartition(".")[2] for key in naming} >= {"yaml", "html", "parquet", "safetensors", "json", "stdout"}
    assert json.loads(taken[0][taken[0].index(b"\n\n{") :])["decision"] in ("promoted", "kept")
    secrets = [PLANTED, os.environ["AWS_SECRET_ACCESS_KEY"]]
    assert [(key, secret) for key, data in left.items() for secret in secrets if secret.encode() in data] == []
