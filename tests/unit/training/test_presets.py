from __future__ import annotations

import pytest

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.config import from_mapping, parse_yaml
from stylemill.training.config import PRESETS, SETTINGS_THAT_MAY_CHANGE, TrainConfig

NEEDED = ("--style-image", "a.jpg", "--content", "photos", "--out", "out")


def printed(capsys: pytest.CaptureFixture[str], *flags: str) -> TrainConfig:
    """Return the config that the command line makes of some flags."""
    assert main(["train", *NEEDED, *flags, "--print-config"]) == DONE
    return from_mapping(TrainConfig, parse_yaml(capsys.readouterr().out, source="test"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stands_in_for_the_defaults(capsys, name):
    made, plain = printed(capsys, "--preset", name), printed(capsys)
    assert {field: getattr(made, field) for field in PRESETS[name]} == PRESETS[name]
    others = set(TrainConfig.__dataclass_fields__) - set(PRESETS[name])
    assert all(getattr(made, field) == getattr(plain, field) for field in others)
    assert made != plain


def test_file_and_flags_override_a_preset(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("crop-px: 128\nwidth: 0.25\n")
    made = printed(capsys, "--preset", "quick", "--config", str(tmp_path / "mine.yaml"), "--width", "0.75")
    assert (made.crop_px, made.width, made.steps) == (128, 0.75, PRESETS["quick"]["steps"])


def test_an_unknown_preset_is_refused_with_the_known_ones(capsys):
    assert main(["train", *NEEDED, "--preset", "slow"]) == WRONG_USE
    assert capsys.readouterr().err == "stylemill: preset='slow': is no preset; use one of " + ", ".join(PRESETS) + "\n"


def test_help_names_each_preset_and_its_values(capsys):
    assert main(["train", "--help"]) == DONE
    text = " ".join(capsys.readouterr().out.split())
    for name, values in PRESETS.items():
        assert f"{name} ({', '.join(f'{field} {value}' for field, value in values.items())})" in text


def test_presets_touch_what_the_picture_depends_on_not_where_it_lies():
    fields = {field for values in PRESETS.values() for field in values}
    assert not fields & {"style_image", "content", "out", "name", "seed", "num_workers", "device"}
    assert fields & set(SETTINGS_THAT_MAY_CHANGE) <= {"steps", "sample_every"}
