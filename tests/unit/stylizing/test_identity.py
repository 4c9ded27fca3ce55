from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from stylemill.config import from_mapping, to_mapping
from stylemill.errors import ConfigError
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import RunIdentity, byte_settings, differences, identify

BASE: dict[str, Any] = {"model": ("m",), "input": "i", "out": "o"}
MODELS = [("waves", "1", "ab" * 32), ("dunes", "2", "cd" * 32)]

CHANGES_BYTES = {
    "strength": 0.5,
    "preserve_color": True,
    "max_size_px": 100,
    "texture_scale": 2.0,
    "precision": "float32",
    "device": "cuda",
    "max_memory": "1GiB",
    "max_pixels": 1000,
    "animation": "all",
    "format": "png",
    "quality": 10,
    "keep_metadata": "all",
}
CHANGES_NO_BYTES = {
    "model": ["other/place"],
    "registry": "some/registry",
    "run_id": "mine",
    "incremental": True,
    "retry_failed": True,
    "num_actors": 7,
    "stages": "separate",
    "runner": "ray",
    "batch_size": 2,
    "threads_per_actor": 2,
    "max_failed_fraction": 0.5,
    "max_source_bytes": 10**6,
    "isolate_decoding": False,
    "decode_timeout_s": 5.0,
    "paint_timeout_s": 5.0,
    "decoder_memory_bytes": 2**30,
    "storage": {"endpoint_url": "http://h", "region": "r", "profile": "p", "retry_deadline_s": 1.0, "timeout_s": 2.0},
}


def config(**changes: Any) -> StylizeConfig:
    return from_mapping(StylizeConfig, {**BASE, **changes})


def identity(config: StylizeConfig, models: list = MODELS, source: str = "/in", out: str = "/out") -> RunIdentity:
    return identify(config, source, out, models)


def test_every_field_is_on_one_of_the_lists():
    fields = set(to_mapping(config()))
    decided_by_models = {"style", "look"}
    known = set(CHANGES_BYTES) | set(CHANGES_NO_BYTES) | decided_by_models | {"style_by", "style_seed"}
    assert fields == known | {"input", "out", "gpu_decode"}


def test_another_choice_of_styles_is_another_run_with_the_same_bytes():
    plain, one = identity(config()), identity(config(style_by="key"))
    other = identity(config(style_by="key", style_seed=1))
    assert plain.fingerprint == one.fingerprint == other.fingerprint
    assert len({plain.run_id, one.run_id, other.run_id}) == 3
    assert identity(config(style_seed=1)).run_id == plain.run_id
    assert differences(one, other) == ["style_seed 0 -> 1"]
    assert RunIdentity.from_json(one.to_json()).style_rule.by == "key" and plain.style_rule.by is None


@pytest.mark.parametrize("name", CHANGES_BYTES)
def test_what_changes_bytes_changes_the_fingerprint_and_the_run(name: str):
    old, new = identity(config()), identity(config(**{name: CHANGES_BYTES[name]}))
    assert old.fingerprint != new.fingerprint and old.run_id != new.run_id
    assert all(a.fingerprint != b.fingerprint for a, b in zip(old.styles, new.styles, strict=True))
    (phrase,) = differences(old, new)
    assert phrase.startswith(f"{name} ")


@pytest.mark.parametrize("name", CHANGES_NO_BYTES)
def test_what_changes_no_bytes_changes_no_fingerprint(name: str):
    old, new = identity(config()), identity(config(**{name: CHANGES_NO_BYTES[name]}))
    assert old.fingerprint == new.fingerprint and old.styles == new.styles
    assert differences(old, new) == []
    assert (old.run_id == new.run_id) is (name != "run_id")


def test_decoding_on_the_gpu_changes_bytes_and_leaves_other_fingerprints_as_they_were():
    assert "gpu_decode" not in byte_settings(config())
    old, new = identity(config(device="cuda")), identity(config(device="cuda", gpu_decode=True))
    assert old.fingerprint != new.fingerprint
    assert differences(old, new) == ["gpu_decode None -> True"]


@pytest.mark.parametrize("changes", [{}, {"device": "cuda", "stages": "fused"}])
def test_decoding_on_the_gpu_needs_one_that_paints_apart(changes: dict[str, str]):
    with pytest.raises(ConfigError, match="gpu_decode"):
        config(gpu_decode=True, **changes)


def test_the_model_counts_by_its_content():
    old = identity(config())
    new = identity(config(), [("waves", "1", "ef" * 32), MODELS[1]])
    assert old.fingerprint != new.fingerprint and old.run_id != new.run_id
    assert differences(old, new) == [f"model waves {'ab' * 6} -> {'ef' * 6}"]
    assert old.styles[0] == new.styles[0], "the style that stayed keeps its fingerprint"


def test_the_order_of_models_and_the_spelling_of_sizes_do_not_count():
    assert identity(config()) == identity(config(), MODELS[::-1])
    assert byte_settings(config(max_memory="2GiB")) == byte_settings(config(max_memory="2048 MiB"))
    assert byte_settings(config(strength="1")) == byte_settings(config(strength="1.0"))


def test_one_style_more_is_another_run_but_not_another_fingerprint_of_the_first():
    one, two = identity(config(), MODELS[:1]), identity(config())
    assert one.run_id != two.run_id and one.fingerprint != two.fingerprint
    assert one.styles[0] in two.styles


def test_input_and_output_make_the_run_but_not_the_fingerprint():
    old = identity(config())
    for new in (identity(config(), source="/other"), identity(config(), out="/other")):
        assert old.fingerprint == new.fingerprint and old.run_id != new.run_id
    assert differences(old, identity(config(), source="/other")) == ["input /in -> /other"]


@pytest.mark.parametrize(
    ("changes", "fingerprint", "run_id"),
    [
        ({}, "0c554cd16f4c0e78202cd43e956ab685eca03af2fcb85b62b39f05bc6ca2376f", "3990627cf9f7026c"),
        (
            {
                "strength": 0.5,
                "preserve_color": True,
                "max_size_px": 700,
                "texture_scale": 1.5,
                "precision": "float32",
                "max_memory": "3GiB",
            },
            "70cffdd77b048fbb580550d46014e0eb6b51f5ce6495ef7d874b0951f2f41067",
            "e40eab2a2a15679c",
        ),
    ],
)
def test_runs_of_earlier_versions_are_found_again(changes: dict[str, Any], fingerprint: str, run_id: str):
    same = identity(config(**changes), MODELS[:1])
    assert (same.fingerprint, same.run_id) == (fingerprint, run_id)


def test_an_identity_comes_back_from_its_file():
    old = dataclasses.replace(identity(config(max_size_px=9), source="/é\n"), parent_run_id="p")
    assert RunIdentity.from_json(old.to_json()) == old
    for data in (b"", b"[]", b"{}", b"null", b"\xff", old.to_json()[:-9]):
        with pytest.raises((ValueError, KeyError, TypeError)):
            RunIdentity.from_json(data)


def test_a_run_id_names_a_folder():
    assert len(identity(config()).run_id) == 16
    assert identity(config(run_id="Mine-1.2_x")).run_id == "Mine-1.2_x"
    for run_id in ("", ".", "..", "a/b", "é", "a b", "-a", "x" * 129, "a\n"):
        if run_id:
            with pytest.raises(ConfigError, match="run_id"):
                StylizeConfig(**BASE, run_id=run_id)
