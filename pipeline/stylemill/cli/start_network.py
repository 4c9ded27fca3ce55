"""``python -m stylemill.cli.start_network --out DIR``: train the start network that stylemill contains.

Two trainings by the product's own means, on the demo's photographs: first the network learns to draw photographs in the
colours of a drawn style, then to paint in that style at half of the usual weight. Running the command again resumes.
docs/start-network.md has the figures.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylemill.cli import train
from stylemill.cli.arguments import parse
from stylemill.config import from_mapping
from stylemill.errors import ConfigError, StylemillError
from stylemill.style_file import PAINTS_PHOTOGRAPHS, PICTURE
from stylemill.training.config import TrainConfig

STYLE = "rings"
"""A style that no style of the demo resembles, with many colours, flat areas and outlines."""
STYLE_WEIGHT = 0.5
"""Half of the default: a start has to draw before it paints."""


@dataclass(frozen=True, kw_only=True)
class StartNetworkConfig:
    """Settings of making a start network."""

    out: str
    """Folder on this machine for all files; running the command again there resumes."""

    drawing_steps: int = 600
    """Steps of the first training, which learns to draw photographs."""

    steps: int = 1500
    """Steps of the second training, which learns a style."""

    crop_px: int = 160
    """Side of the training crops."""


def main(arguments: Sequence[str]) -> int:
    """Make the start network; print where it is, with its digest."""
    config = parse(StartNetworkConfig, "start-network", "Train the start network.", arguments)
    if config is None:
        return 0
    from stylemill.demo.drawn_styles import draw_to
    from stylemill.demo.library import build_training_content

    out = Path(config.out).absolute()
    style = out / "drawn" / f"{STYLE}.png"
    draw_to(style, STYLE)
    build_training_content(out / "content")
    # A layer that keeps edges and one that keeps shapes; the content term compares no colours, so a palette is given.
    drawing = {
        "start": "scratch",
        "content_layers": "relu1_1=1,relu2_2=1",
        "style_layers": "palette=1",
        "learning_rate": 4e-3,
        "steps": config.drawing_steps,
    }
    code = train.run(_config(out, "drawing", config, drawing))
    if code:
        return code
    painting = {"start": str(out / "drawing" / "style.safetensors"), "steps": config.steps}
    code = train.run(_config(out, "painting", config, painting))
    if code:
        return code
    path, sha256 = halve(out / "painting" / "style.safetensors", out / "start_network.safetensors")
    print(f"start network: {path}, sha256 {sha256}")
    return 0


_KEPT = ("steps", "num_content", "loss_network", "loss_weights", PICTURE, PAINTS_PHOTOGRAPHS)
"""Metadata of the files in the package."""


def _config(out: Path, name: str, config: StartNetworkConfig, settings: dict[str, Any]) -> TrainConfig:
    return from_mapping(
        TrainConfig,
        {
            "style_image": str(out / "drawn" / f"{STYLE}.png"),
            "content": [str(out / "content")],
            "out": str(out / name),
            "name": "start",
            "crop_px": config.crop_px,
            "style_size_px": 256,
            "style_weight": STYLE_WEIGHT,
            "learning_rate": 2e-3,
            "sample_every": 500,
            **settings,
        },
    )


def halve(model: Path, out: Path) -> tuple[Path, str]:
    """Write a style model in half precision; return its path and digest, which depend on the weights alone."""
    from stylemill.storage import Storage
    from stylemill.style_model import load_style_model, save_style_model

    storage = Storage()
    loaded = load_style_model(storage, str(model))
    weights = {name: tensor.half() for name, tensor in loaded.state_dict.items()}
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(weights[name].contiguous().numpy().tobytes())
    metadata = {key: loaded.metadata[key] for key in _KEPT if key in loaded.metadata}
    written = save_style_model(
        storage, str(out), replace(loaded, version=sha256.hexdigest()[:12], state_dict=weights, metadata=metadata)
    )
    return out, written.sha256


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"start-network: {error}")
    except StylemillError as error:
        sys.exit(f"start-network: {error}; the same command resumes")
