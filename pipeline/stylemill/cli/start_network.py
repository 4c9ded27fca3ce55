"""``python -m stylemill.cli.start_network --out DIR``: train the start network that stylemill contains.

Two trainings by the product's own means, on the demo's photographs: first the network learns to reproduce pictures,
then it takes all drawn styles in turn. Running the command again resumes. docs/start-network.md has the figures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylemill.cli import train
from stylemill.cli.arguments import parse
from stylemill.config import from_mapping
from stylemill.errors import ConfigError, StylemillError
from stylemill.training.config import TrainConfig

STYLE_PX = 512


@dataclass(frozen=True, kw_only=True)
class StartNetworkConfig:
    """Settings of making a start network."""

    out: str
    """Folder on this machine for all files; running the command again there resumes."""

    drawing_steps: int = 600
    """Steps of the first training, which learns to reproduce pictures."""

    steps: int = 3000
    """Steps of the second training, which takes the styles in turn."""

    crop_px: int = 160
    """Side of the training crops."""


def main(arguments: Sequence[str]) -> int:
    """Make the start network; print where it is, with its digest."""
    config = parse(StartNetworkConfig, "start-network", "Train the start network.", arguments)
    if config is None:
        return 0
    out = Path(config.out).absolute()
    styles = build(out)
    drawing = _config(out, "drawing", styles[:1], config, steps=config.drawing_steps, start="scratch", style_weight=0.0)
    code = train.run(replace(drawing, learning_rate=4e-3, tv_weight=0.0, content_layers="relu1_1=1,relu2_2=1"))
    if code:
        return code
    start = str(out / "drawing" / "style.safetensors")
    code = train.run(replace(_config(out, "styles", styles, config, steps=config.steps, start=start), ema_decay=0.998))
    if code:
        return code
    path, sha256 = halve(out / "styles" / "style.safetensors", out / "start_network.safetensors")
    print(f"start network: {path}, sha256 {sha256}")
    return 0


def build(out: Path) -> list[Path]:
    """Draw the styles and crop the photographs where they are missing; return the style images' paths."""
    from stylemill.demo.drawn_styles import STYLES, draw
    from stylemill.demo.library import build_training_content

    paths = [out / "drawn" / f"{name}.png" for name in STYLES]
    for folder in (out / "drawn", out / "content"):
        folder.mkdir(parents=True, exist_ok=True)
    build_training_content(out / "content")
    for name, path in zip(STYLES, paths, strict=True):
        if not path.exists():
            draft = path.with_suffix(".draft")
            draw(name, side_px=STYLE_PX).save(draft, format="PNG")
            draft.replace(path)
    return paths


def _config(out: Path, name: str, styles: list[Path], config: StartNetworkConfig, **settings: Any) -> TrainConfig:
    return from_mapping(
        TrainConfig,
        {
            "style_image": str(styles[0]),
            "more_styles": [str(path) for path in styles[1:]],
            "content": [str(out / "content")],
            "out": str(out / name),
            "name": "start",
            "crop_px": config.crop_px,
            "style_size_px": 256,
            "learning_rate": 1.5e-3,
            "sample_every": 500,
            **settings,
        },
    )


def halve(model: Path, out: Path) -> tuple[Path, str]:
    """Write a style model in half precision; return its path and digest."""
    from stylemill.storage import Storage
    from stylemill.style_model import load_style_model, save_style_model

    storage = Storage()
    loaded = load_style_model(storage, str(model))
    weights = {name: tensor.half() for name, tensor in loaded.state_dict.items()}
    metadata = {key: loaded.metadata[key] for key in ("steps", "num_content", "loss_network", "loss_weights")}
    written = save_style_model(storage, str(out), replace(loaded, state_dict=weights, metadata=metadata))
    return out, written.sha256


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"start-network: {error}")
    except StylemillError as error:
        sys.exit(f"start-network: {error}; the same command resumes")
