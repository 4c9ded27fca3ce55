"""All workers of a run paint alike, or stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylemill.errors import ConfigError, StorageError
from stylemill.nn.cpu.packed_conv import PackedConv
from stylemill.nn.precision import native_bfloat16
from stylemill.storage import Storage
from stylemill.stylizing import environment, paint
from stylemill.stylizing.environment import agree_on_codecs, agree_on_precision, codec_versions, torch_versions
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.preflight import PreparedRun


def painter(run: PreparedRun) -> Painter:
    return Painter(Storage(), run.layout, run.identity, run.config)


def test_every_library_has_a_version():
    found = codec_versions() | torch_versions()
    assert {"torch", "pillow", "libjpeg_turbo", "onednn", "numpy", "tifffile", "webp"} <= found.keys()
    assert all(found[name][0].isdigit() for name in ("torch", "pillow", "libjpeg_turbo", "onednn", "numpy"))


def test_builds_for_cpus_and_for_gpus_have_the_same_version(monkeypatch: pytest.MonkeyPatch):
    found = []
    for version in ("2.14.1", "2.14.1+cpu", "2.14.1+cu130"):
        monkeypatch.setattr("torch.__version__", version)
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        found.append((torch_versions()["torch"], codec_versions()["pillow"]))
    assert set(found) == {("2.14.1", "2.14.1")}


def test_an_upgrade_between_two_starts_of_a_run_is_found(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    agree_on_codecs(Storage(), run.layout)
    agree_on_codecs(Storage(), run.layout)
    later = {**codec_versions(), "pillow": "99.0", "pillow-heif": ""}
    monkeypatch.setattr(environment, "codec_versions", lambda: later)
    with pytest.raises(ConfigError, match=r"pillow [\d.]+ -> 99\.0") as caught:
        agree_on_codecs(Storage(), run.layout)
    assert "--run-id" in str(caught.value) and "webp" not in str(caught.value)


def test_another_torch_is_found(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    painter(run)
    monkeypatch.setattr(environment, "torch_versions", lambda: {"torch": "99.0", "onednn": "9"})
    with pytest.raises(ConfigError, match=r"torch [\d.]+ -> 99\.0"):
        painter(run)


def test_a_damaged_record_stops_the_worker(run: PreparedRun):
    Storage().write_bytes(run.layout.environment_uri("codecs"), b"[]")
    with pytest.raises(StorageError, match="damaged"):
        agree_on_codecs(Storage(), run.layout)


def test_the_precision_of_the_first_worker_holds(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    assert agree_on_precision(Storage(), run.layout, "float32") == "float32"
    monkeypatch.setattr(paint, "resolve_precision", lambda *_: "bfloat16")  # a machine on which auto means that
    assert {one.net.precision for one in painter(run).painters.values()} == {"float32"}


def test_a_machine_that_lacks_the_precision_of_the_run_stops(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    agree_on_precision(Storage(), run.layout, "bfloat16")
    monkeypatch.setattr(paint, "resolve_precision", lambda *_: "float32")
    with pytest.raises(ConfigError, match="bfloat16 in this run") as caught:
        painter(run)
    assert "--precision float32" in str(caught.value)


@pytest.mark.skipif(not native_bfloat16(), reason="float32 kernels are not tried")
def test_a_machine_on_which_other_kernels_work_stops(run: PreparedRun, monkeypatch: pytest.MonkeyPatch):
    painter(run)
    recorded = json.loads(Path(run.layout.environment_uri("kernels-waves")).read_text())
    assert len(recorded) >= 16 and not any("replaced" in kernel for kernel in recorded.values())
    monkeypatch.setattr(PackedConv, "_passes_trial", lambda self, _: self.in_channels != 3)
    with pytest.raises(ConfigError, match=r"3 to \d+, 9x9/1x1 -> 3 to \d+, 9x9/1x1, replaced"):
        painter(run)
