from __future__ import annotations

import json

import pytest

from pipeline.errors import ConfigError
from pipeline.storage import Storage, resolve
from pipeline.style_model import save_style_model
from pipeline.training.config import ADDED_LATER, TrainConfig, settings_of
from pipeline.training.layout import TrainLayout
from pipeline.training.preflight import prepare
from tests.drawn import image_bytes, style_model


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "content").mkdir()
    for seed in range(9):
        (tmp_path / "content" / f"{seed}.jpg").write_bytes(image_bytes(20, 30, seed))
    (tmp_path / "style.jpg").write_bytes(image_bytes(200, 100))
    return tmp_path


def config(folder, **changes) -> TrainConfig:
    fields = {
        "style_image": str(folder / "style.jpg"), "content": (str(folder / "content"),), "out": str(folder / "out"),
        "style_size_px": 64,
    }  # fmt: skip
    return TrainConfig(**(fields | changes))


def refused(folder, **changes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(config(folder, **changes))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_sound_config_is_claimed_and_can_be_claimed_again(folder):
    first = prepare(config(folder))
    assert [uri.rsplit("/", 1)[1] for uri in first.content] == [f"{seed}.jpg" for seed in range(9)]
    assert first.finished is None and first.warnings == ()
    assert prepare(config(folder)) == first


def test_images_that_come_later_do_not_change_a_run_that_was_begun(folder):
    first = prepare(config(folder))
    (folder / "content" / "a-new-one.jpg").write_bytes(image_bytes(20, 30))
    assert prepare(config(folder)).content == first.content


@pytest.mark.parametrize(
    ("field", "value"),
    [("style_image", "absent.jpg"), ("style_image", "content"), ("content", ("absent",)), ("out", "style.jpg/below"),
     ("warm_start", "style.jpg"), ("warm_start", "absent"), ("teacher", "style.jpg"), ("teacher", "absent")],
)  # fmt: skip
def test_locations_that_do_not_serve(folder, field, value):
    value = tuple(str(folder / part) for part in value) if field == "content" else str(folder / value)
    assert refused(folder, **{field: value}).field == field


def test_weights_to_start_from_that_are_not_finite(folder):
    model = style_model()
    model.state_dict["stem.conv.weight"][0] = float("nan")
    save_style_model(Storage(), str(folder / "broken.safetensors"), model)
    error = refused(folder, warm_start=str(folder / "broken.safetensors"))
    assert error.field == "warm_start" and "not finite" in error.problem


def test_a_style_image_that_is_none(folder):
    (folder / "style.jpg").write_text("no picture")
    assert refused(folder).field == "style_image"


def test_loss_weights_that_do_not_fit_are_found_before_ray_starts(folder):
    assert refused(folder, loss_network="vgg16", loss_weights=str(folder / "style.jpg")).field == "loss_weights"
    assert "does not exist" in str(refused(folder, loss_network="vgg16", loss_weights=str(folder / "absent")))


def test_output_among_the_content_is_refused(folder):
    assert refused(folder, out=str(folder / "content" / "out")).field == "out"


@pytest.mark.parametrize(("field", "value"), [("style_weight", 9.0), ("seed", 1), ("crop_px", 128), ("name", "b")])
def test_another_setting_in_the_same_place_is_refused_by_name(folder, field, value):
    prepare(config(folder))
    error = refused(folder, **{field: value})
    assert (error.field, error.value) == (field, value)


def test_another_style_image_in_the_same_place_is_refused(folder):
    prepare(config(folder))
    (folder / "style.jpg").write_bytes(image_bytes(200, 100, seed=4))
    assert refused(folder).field == "style_image"


def test_settings_that_may_change(folder):
    prepare(config(folder))
    changed = prepare(config(folder, num_workers="1:2", checkpoint_every=7, keep_checkpoints=5))
    assert changed.warnings == ()


def test_other_steps_are_allowed_with_a_word_about_what_they_do(folder):
    prepare(config(folder, steps=10))
    (warning,) = prepare(config(folder, steps=20)).warnings
    assert "from 10 to 20" in warning and "not that of an undisturbed run" in warning


def test_few_images_are_allowed_with_a_word_about_what_they_do(folder):
    (warning,) = prepare(config(folder, content=(str(folder / "content" / "1.jpg"),))).warnings
    assert "only 1 content image:" in warning and "may smear" in warning


def test_a_run_of_an_older_version_that_knows_no_variants_is_resumed(folder):
    prepare(config(folder))
    begun_with = json.loads(Storage().read_bytes(TrainLayout(resolve(str(folder / "out"))).identity_uri))
    assert not set(begun_with) & set(ADDED_LATER)
    assert "norm" not in settings_of(config(folder)) and settings_of(config(folder, norm="group"))["norm"] == "group"


@pytest.mark.parametrize(("field", "value"), [("norm", "group"), ("residual", "separable"), ("teacher_weight", 3.0)])
def test_variants_are_part_of_what_a_run_is(folder, field, value):
    prepare(config(folder, **{field: value}))
    assert refused(folder).field == field
    prepare(config(folder, out=str(folder / "other")))
    assert refused(folder, out=str(folder / "other"), **{field: value}).field == field


def test_the_teacher_is_part_of_what_a_run_is_by_its_content(folder):
    for name, seed in (("a", 1), ("b", 2)):
        save_style_model(Storage(), str(folder / f"{name}.safetensors"), style_model(seed=seed))
    first = prepare(config(folder, teacher=str(folder / "a.safetensors")))
    assert first.teacher == (folder / "a.safetensors").read_bytes()
    (folder / "c.safetensors").write_bytes(first.teacher)
    prepare(config(folder, teacher=str(folder / "c.safetensors")))
    assert refused(folder, teacher=str(folder / "b.safetensors")).field == "teacher"
    assert refused(folder).field == "teacher"
