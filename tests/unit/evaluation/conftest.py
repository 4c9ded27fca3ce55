"""A judge with a drawn style, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.evaluation.config import JudgeConfig
from stylemill.evaluation.judge import Judge, load_judge
from stylemill.storage import Storage
from tests.drawn import image_bytes


@pytest.fixture(scope="session")
def style_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "style.png"
    path.write_bytes(image_bytes(96, 128, seed=9, format="PNG"))
    return path


@pytest.fixture(scope="session")
def judge(style_image: Path) -> Judge:
    return load_judge(Storage(), JudgeConfig(style_size_px=96), style_image=str(style_image))
