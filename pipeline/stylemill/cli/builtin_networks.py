"""``python -m stylemill.cli.builtin_networks --out DIR``: train the networks that come with stylemill.

Three trainings by the product's own means, on the demo's photographs: the network learns to draw photographs in the
colours of a drawn style, then to paint in that style at half of the usual weight, which is the start of all trainings;
from it, one network learns all drawn styles, and to paint photographs as they are. Running the command again resumes.
docs/start-network.md and docs/builtin-styles.md have the figures.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylemill.builtin import NAMES
from stylemill.cli import train
from stylemill.cli.arguments import parse
from stylemill.config import from_mapping
from stylemill.errors import ConfigError, StylemillError
from stylemill.style_file import PAINTS_PHOTOGRAPHS, PICTURE, merge_styles, split_styles
from stylemill.training.config import TrainConfig

STYLE = "rings"
"""A style that no style of the demo resembles, with many colours, flat areas and outlines."""
STYLE_WEIGHT = 0.5
"""Half of the default: a start has to draw before it paints."""
STYLES_WEIGHT = 1.5
"""Of the built-in styles: half more than the default, for strokes that show."""


@dataclass(frozen=True, kw_only=True)
class BuiltinNetworksConfig:
    """Settings of making the networks."""

    out: str
    """Folder on this machine for all files; running the command again there resumes."""

    drawing_steps: int = 600
    """Steps of the first training, which learns to draw photographs."""

    steps: int = 1500
    """Steps of the second training, which learns a style."""

    styles_steps: int = 4500
    """Steps of the third training, which learns all styles."""

    crop_px: int = 160
    """Side of the training crops."""


def main(arguments: Sequence[str]) -> int:
    """Make the networks; print where they are, with their digests."""
    config = parse(BuiltinNetworksConfig, "builtin-networks", "Train the networks that come with stylemill.", arguments)
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
    painting = {"start": str(out / "drawing" / "style.safetensors"), "steps": config.steps}
    for name, settings in (("drawing", drawing), ("painting", painting)):
        code = train.run(_config(out, name, config, {"name": "start", "style_image": str(style), **settings}))
        if code:
            return code
    start = halve(out / "painting" / "style.safetensors", out / "start_network.safetensors", keep=_HISTORY)
    images = {name: out / "drawn" / f"{name}.png" for name in NAMES}
    for name, image in images.items():
        draw_to(image, name)
    all_styles = {
        "start": str(start),
        "style_image": [str(image) for image in images.values()],
        "with_photo": True,
        "style_weight": STYLES_WEIGHT,
        "steps": config.styles_steps,
    }
    code = train.run(_config(out, "styles", config, all_styles))
    if not code:
        halve(out / "styles" / "style.safetensors", out / "styles.safetensors", keep=(*_HISTORY, *_LOOKS))
    return code


_HISTORY = ("steps", "num_content", "loss_network", "loss_weights")
_LOOKS = (PICTURE, PAINTS_PHOTOGRAPHS)
"""Metadata that the files in the package keep: their history, and what commands and pages use."""


def _config(out: Path, name: str, config: BuiltinNetworksConfig, settings: dict[str, Any]) -> TrainConfig:
    return from_mapping(
        TrainConfig,
        {
            "content": [str(out / "content")],
            "out": str(out / name),
            "crop_px": config.crop_px,
            "style_size_px": 256,
            "style_weight": STYLE_WEIGHT,
            "learning_rate": 2e-3,
            "sample_every": 500,
            **settings,
        },
    )


def halve(model: Path, out: Path, *, keep: Sequence[str]) -> Path:
    """Write the styles of a model in half precision and print its digest; versions depend on the weights alone.

    Args:
        model: file of one style or several.
        out: file to write.
        keep: keys of the metadata that are kept.
    """
    halved = {}
    for number, file in enumerate(split_styles(model.read_bytes(), source=str(model))):
        halved[f"{model}, style {number}"] = _halved(file, keep)
    data = merge_styles(halved)
    out.write_bytes(data)
    print(f"{out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return out


def _halved(file: bytes, keep: Sequence[str]) -> bytes:
    from stylemill.style_model import from_bytes, to_bytes

    loaded = from_bytes(file, source="the training")
    weights = {name: tensor.half() for name, tensor in loaded.state_dict.items()}
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(weights[name].contiguous().numpy().tobytes())
    metadata = {key: loaded.metadata[key] for key in keep if key in loaded.metadata}
    return to_bytes(replace(loaded, version=sha256.hexdigest()[:12], state_dict=weights, metadata=metadata))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"builtin-networks: {error}")
    except StylemillError as error:
        sys.exit(f"builtin-networks: {error}; the same command resumes")
