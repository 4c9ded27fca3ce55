"""Three nights of a schedule, on this machine: what `stylemill retrain` does when it is started every night.

    python examples/nightly_retraining/nights.py OUT [--steps N]

Night 1 trains the first version. Night 2 finds nothing new and does nothing. On night 3 photographs have arrived: a
candidate is trained from the version in use, compared with it, and replaces it only if it is better.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

from stylemill.demo.drawn_styles import draw_to
from stylemill.demo.library import build_training_content

HOLDOUT = ("camera", "coffee", "coins", "rocket")
"""Photographs that no training sees; candidate and champion are compared on them."""
LATE = ("astronaut", "hubble")
"""Photographs that arrive on the third day."""


def main(arguments: list[str]) -> int:
    """Play the nights; return 0 if each one ended well."""
    parser = argparse.ArgumentParser(description="Three nights of retraining.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args(arguments)
    out = given.out.absolute()
    prepare(out, given.steps)
    for night in (1, 2, 3):
        if night == 3:
            for photo in (out / "late").iterdir():
                photo.replace(out / "incoming" / photo.name)
        print(f"\nnight {night}", flush=True)
        # What cron or the systemd timer runs.
        command = [sys.executable, "-m", "stylemill", "retrain", "--config", str(out / "retrain.yaml")]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    tell(out)
    return 0


def prepare(out: Path, steps: int) -> None:
    """Draw the style image, cut photographs, and write the config that every night uses."""
    if (out / "retrain.yaml").exists():
        return
    for folder in ("incoming", "holdout", "late"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    draw_to(out / "waves.png", "waves", side_px=256)
    for name in build_training_content(out / "incoming", side_px=160):
        photo = name.partition("-")[0]
        place = "holdout" if photo in HOLDOUT else "late" if photo in LATE else "incoming"
        (out / "incoming" / name).replace(out / place / name)
    config = {
        "style_image": str(out / "waves.png"),
        "content": [str(out / "incoming")],
        "holdout": str(out / "holdout"),
        "out": str(out / "retraining"),
        "registry": str(out / "registry"),
        "name": "waves",
        "steps": steps,
        "width": 0.25,
        "crop_px": 128,
        "style_size_px": 128,
        "size_px": 128,
        "loss_network": "pyramid",
        "sample_every": steps,
        "minimal_effect": 0.2,
    }
    (out / "retrain.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def tell(out: Path) -> None:
    """Print the decisions, in their order, and the version that is in use."""
    print()
    outcomes = [json.loads(path.read_text()) for path in (out / "retraining" / "outcomes").glob("*.json")]
    for outcome in sorted(outcomes, key=lambda one: one["decided_at"]):
        print(f"{outcome['decision']:<9} {outcome['candidate']}: {outcome['reason']}")
    in_use = json.loads((out / "registry" / "waves" / "champion.json").read_text())
    print(f"in use: waves@{in_use['version']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
