"""``stylemill.stylize`` and ``stylemill.train``: the jobs of the command line, from a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import stylemill
from stylemill.errors import ConfigError
from tests.drawn import image_bytes
from tests.integration.conftest import MIXED, NOT_PAINTED, contents_of, fill


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", {f"{seed}.jpg": image_bytes(40, 60, seed) for seed in range(3)})


def test_a_library_is_painted_and_the_same_call_has_nothing_to_do(
    mixed_library: Path, style_file: Path, tmp_path: Path
):
    seen = []
    run = stylemill.stylize(style_file, mixed_library, tmp_path / "out", on_progress=seen.append)
    assert not run.already_committed
    assert run.counts == {"ok": len(MIXED) - len(NOT_PAINTED), "failed": 2, "skipped": 1}
    assert sum(run.errors.values()) == len(NOT_PAINTED)
    assert len(contents_of(Path(run.images["waves"]))) == run.counts["ok"]
    assert run.report is not None and Path(run.report).exists()
    assert seen and seen[-1].num_sources == len(MIXED)
    manifest = stylemill.Manifest.open(run.out)
    assert manifest.counts == run.counts
    assert set(manifest.failures()["key"]) == {key for key, status in NOT_PAINTED.items() if status == "failed"}
    assert manifest.verify().is_sound
    again = stylemill.stylize(style_file, mixed_library, tmp_path / "out")
    assert again.already_committed
    assert (again.run_id, again.counts, again.report) == (run.run_id, run.counts, None)


def test_what_it_paints_are_the_pictures_of_the_class(photos: Path, style_file: Path, tmp_path: Path):
    run = stylemill.stylize(style_file, photos, tmp_path / "out", strength=0.5, format="png")
    style = stylemill.StyleModel.load(style_file)
    for photo in photos.iterdir():
        painted = Path(run.images["waves"]) / f"{photo.name}.png"
        assert Image.open(painted).convert("RGB").tobytes() == style.paint(photo, strength=0.5).tobytes()


def test_several_styles_and_what_is_new(photos: Path, style_file: Path, second_style_file: Path, tmp_path: Path):
    models = [style_file, second_style_file]
    first = stylemill.stylize(models, photos, tmp_path / "out")
    assert len(first.images) == 2 and first.counts["ok"] == 6
    fill(photos, {"new.jpg": image_bytes(30, 30, 9)})
    later = stylemill.stylize(models, photos, tmp_path / "out", incremental=True)
    assert later.counts["ok"] == 2
    manifest = stylemill.Manifest.open(tmp_path / "out")
    assert manifest.run_ids == [first.run_id, later.run_id]
    assert manifest.counts["ok"] == 8


def test_a_style_is_trained_and_painted_with(local_ray: str, photos: Path, tmp_path: Path):
    (tmp_path / "style.png").write_bytes(image_bytes(80, 80, 5, "PNG"))
    settings = {"loss_network": "pyramid", "crop_px": 32, "style_size_px": 64, "batch_size": 2, "steps": 2}
    trained = stylemill.train(tmp_path / "style.png", photos, tmp_path / "trained", preset="quick", **settings)
    assert (trained.name, trained.steps, trained.already_finished) == ("style", 2, False)
    assert trained.loss is not None and trained.loss > 0
    assert trained.report is not None and Path(trained.report).exists()
    painted = stylemill.StyleModel.load(trained.model).paint(photos / "0.jpg")
    assert painted.size == (60, 40)
    again = stylemill.train(tmp_path / "style.png", photos, tmp_path / "trained", preset="quick", **settings)
    assert again.already_finished and again.version == trained.version


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"strenght": 1}, "strenght"), ({"strength": 7}, "strength"), ({"runner": "ray", "device": "tpu"}, "device")],
)
def test_a_wrong_setting_of_a_run_is_refused(
    photos: Path, style_file: Path, tmp_path: Path, settings: dict[str, object], field: str
):
    with pytest.raises(ConfigError) as refusal:
        stylemill.stylize(style_file, photos, tmp_path / "out", **settings)
    assert refusal.value.field == field
    assert not (tmp_path / "out").exists()


def test_an_unknown_preset_is_refused(photos: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="preset"):
        stylemill.train(photos / "0.jpg", photos, tmp_path / "out", preset="slow")
