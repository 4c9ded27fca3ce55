"""A judge with a drawn style, loaded once, and settings of an evaluation. Torch uses one thread here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stylemill.evaluation.config import EvaluateConfig, JudgeConfig
from stylemill.evaluation.judge import Judge, load_judge
from stylemill.storage import Storage
from tests.drawn import image_bytes


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: these tensors are small, and more threads only wait for busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def style_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "style.png"
    path.write_bytes(image_bytes(96, 128, seed=9, format="PNG"))
    return path


@pytest.fixture(scope="session")
def judge(style_image: Path) -> Judge:
    return load_judge(Storage(), JudgeConfig(style_size_px=96, loss_network="pyramid"), style_image=str(style_image))


def evaluation_config(
    tmp_path: Path,
    style_image: Path,
    models: tuple[Path, ...],
    *,
    image_px: tuple[int, int] = (90, 120),
    **changes: object,
) -> EvaluateConfig:
    """Draw three images of (height, width) ``image_px`` and return settings that measure models on them."""
    content = tmp_path / "content"
    for number in range(3):
        path = content / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(*image_px, seed=number))
    return EvaluateConfig(
        model=tuple(map(str, models)),
        content=str(content),
        out=str(tmp_path / "out"),
        judge=JudgeConfig(style_image=str(style_image), style_size_px=96, loss_network="pyramid"),
        size_px=80,
        **changes,  # type: ignore[arg-type]
    )
