"""Firings of retraining on drawn pictures, with a trainer that takes no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.registry import Registry
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.retrain import RetrainResult, retrain
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, to_bytes
from stylemill.training.config import TrainConfig
from tests.drawn import drawn_image, image_bytes

STYLE = "waves"


def rough_style(version: str, noise: float) -> bytes:
    """Return a style that is the worse, the more noise its last layer makes."""
    net = TransformerNet(Architecture(width=0.1))
    net.init_weights(3)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights["head.conv.weight"] *= noise
    return to_bytes(
        StyleModel(name=STYLE, version=version, architecture=net.architecture, state_dict=weights, metadata={})
    )


class Trainer:
    """Trains in no time: writes the model that the test wants, as a training would."""

    def __init__(self) -> None:
        self.version, self.noise = "first", 30.0
        self.starts: list[str] = []

    def __call__(self, config: TrainConfig) -> bool:
        self.starts.append(config.start)
        Storage().write_bytes(f"{config.out}/style.safetensors", rough_style(self.version, self.noise))
        return True


def make_config(tmp_path: Path) -> RetrainConfig:
    """Return a config over eight images to train on and eight to compare on, all drawn."""
    for folder in ("content", "holdout"):
        (tmp_path / folder).mkdir()
        for number in range(8):
            (tmp_path / folder / f"{number}.jpg").write_bytes(image_bytes(64, 64, seed=number))
    Image.fromarray(drawn_image(96, 96, seed=9)).save(tmp_path / "waves.png")
    return RetrainConfig(
        style_image=str(tmp_path / "waves.png"),
        content=(str(tmp_path / "content"),),
        holdout=str(tmp_path / "holdout"),
        out=str(tmp_path / "out"),
        registry=str(tmp_path / "registry"),
        size_px=64,
        minimal_effect=0.5,
        loss_network="pyramid",
    )


def fire(config: RetrainConfig, trainer: Trainer, **changes: Any) -> RetrainResult:
    """Do one firing."""
    return retrain(replace(config, **changes), trainer, lambda stage: None)


def grow(config: RetrainConfig, number: int) -> None:
    """Let a new photograph arrive."""
    Path(config.content[0], f"new{number}.jpg").write_bytes(image_bytes(64, 64, seed=100 + number))


def champion(config: RetrainConfig) -> str | None:
    """Return the version in use."""
    promotion = Registry.open(Storage(), str(config.registry)).champion(STYLE)
    return promotion.version if promotion else None
