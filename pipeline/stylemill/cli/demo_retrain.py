"""``stylemill demo-retrain``: four decisions about a style on this machine.

The first candidate becomes the champion, a better one replaces it, a worse one does not, and the last promotion is
rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stylemill.cli.arguments import parse
from stylemill.cli.demo_pages import STYLE_NAME
from stylemill.cli.terminal import duration
from stylemill.config import from_mapping
from stylemill.errors import ConfigError
from stylemill.retraining.config import RetrainConfig
from stylemill.training.config import PRESETS

HOLDOUT_PHOTOS = ("camera", "coffee", "coins", "rocket")
"""Photographs to compare on; the others are trained on."""


@dataclass(frozen=True, kw_only=True)
class DemoRetrainConfig:
    """Settings of the demo of retraining."""

    out: str = "demo-retrain-out"
    """Folder on this machine for all output of the demo; running it again there finishes what is left."""

    steps: int = 200
    """Steps of the good candidate; the first champion gets a quarter of them, the bad candidate a tenth."""

    def __post_init__(self) -> None:
        if not self.out or "://" in self.out:
            raise ConfigError(
                "out", self.out, "is not a folder of this machine", "write a folder such as demo-retrain-out"
            )
        if self.steps < 10:
            raise ConfigError("steps", self.steps, "is below 10", "write a whole number from 10")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 if the four decisions are the expected ones, else 1."""
    config = parse(DemoRetrainConfig, "demo-retrain", "Four decisions about a style, on this machine.", arguments)
    if config is None:
        return 0
    out = Path(config.out).absolute()
    start_s = time.monotonic()
    style_image, content, holdout = build(out)

    def firing(name: str, steps: int, start: str) -> RetrainConfig:
        return from_mapping(
            RetrainConfig,
            {
                **PRESETS["quick"],
                "style_image": str(style_image),
                "loss_weights": "hed",  # nothing else is there without a download
                "name": STYLE_NAME,
                "content": [str(content)],
                "holdout": str(holdout),
                "out": str(out),
                "registry": str(out / "registry"),
                "firing": name,
                "start": start,
                "steps": steps,
                "crop_px": 128,
                "sample_every": steps,
                "size_px": 192,
                "minimal_effect": 0.2,  # eleven photographs cannot show a smaller one
            },
        )

    firings = [
        firing("1-first", max(1, config.steps // 4), "scratch"),
        firing("2-longer", config.steps, "champion"),
        firing("3-hasty", max(1, config.steps // 10), "scratch"),
    ]
    decisions = [run_firing(one) for one in firings] + [roll_back_once(firings[-1])]
    print(f"\n{', '.join(decisions)} in {duration(time.monotonic() - start_s)}. Open this page in a browser:")
    print(out / "report" / "index.html")
    return 0 if decisions == ["promoted", "promoted", "kept", "rolled_back"] else 1


def build(out: Path) -> tuple[Path, Path, Path]:
    """Draw the style image and crop the photographs; return the style image, the content and the holdout."""
    from stylemill.demo.drawn_styles import draw_to
    from stylemill.demo.library import build_training_content

    content, holdout = out / "content", out / "holdout"
    style_image = out / "style" / f"{STYLE_NAME}.png"
    if not style_image.exists():
        try:
            for folder in (content, holdout, style_image.parent):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot be created ({error.strerror})"
            raise ConfigError("out", str(out), problem, "give a folder in which you may write") from None
        for name in build_training_content(content):
            photo = name.partition("-")[0]
            if photo in HOLDOUT_PHOTOS and "mirrored" not in name:
                (content / name).replace(holdout / name)
            elif photo in HOLDOUT_PHOTOS:
                (content / name).unlink()
        draw_to(style_image, "night-fields")
    return style_image, content, holdout


def run_firing(config: RetrainConfig) -> str:
    """Run one firing and return its decision."""
    from stylemill.cli.retrain import print_outcome, train_candidate, write_page
    from stylemill.retraining.retrain import retrain

    print(f"\nfiring {config.firing}: {config.steps} steps", flush=True)
    result = retrain(config, train_candidate, lambda stage: print(stage, flush=True))
    if result.outcome is None:
        return "stopped"
    print_outcome(result)
    write_page(config)
    return result.outcome.decision


def roll_back_once(config: RetrainConfig) -> str:
    """Roll back the newest promotion, unless that is done, and return the decision."""
    from stylemill.cli import styles
    from stylemill.cli.retrain import write_page
    from stylemill.retraining.outcome import load_outcomes
    from stylemill.storage import Storage

    def rolled_back() -> bool:
        return any(one.decision == "rolled_back" for one in load_outcomes(Storage(config.storage), config.out))

    if not rolled_back():
        reason = "somebody liked the first one better"
        print(f"\nrolling back: {reason}", flush=True)
        words = [config.style_name, "--registry", str(config.registry), "--out", config.out, "--reason", reason]
        styles.main(["rollback", *words])
        write_page(config)
    return "rolled_back" if rolled_back() else "not rolled back"
