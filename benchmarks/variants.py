"""What the variants of the network learn in equal steps, and what they cost.

Trains each variant with the steps of ``stylemill train`` (same loss, schedule, averaging and order of samples; no Ray),
then measures the trained network on photographs that it did not see; one or several variants at a time:

    python benchmarks/variants.py --content photos --style-image style.jpg --out variants nearest wide
    python benchmarks/variants.py --content photos --style-image style.jpg --out variants --merge

Results of single runs are stored in OUT as JSON and PNG until they are merged into a table and a picture.
``narrow distilled`` learns from the model of ``wide``, which must have been trained before.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from stylemill.evaluation.image_metrics import grid_energy
from stylemill.nn.fast_net import FastNet
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import perceptual_loss, style_target
from stylemill.nn.pixels import normalize
from stylemill.nn.precision import DTYPES, resolve_precision
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, to_bytes
from stylemill.training.checkpoint import TrainState
from stylemill.training.data import Batches, Content, list_content, load_short_side
from stylemill.training.schedule import Sampler, one_cycle
from stylemill.training.train_step import ReducedPrecisionNet, StepSetup, frozen_teacher, train_step

VARIANTS = {
    "nearest": Architecture(width=0.5),
    "bilinear": Architecture(width=0.5, upsampling="bilinear"),
    "bicubic": Architecture(width=0.5, upsampling="bicubic"),
    "transposed": Architecture(width=0.5, upsampling="transposed"),
    "shuffle": Architecture(width=0.5, upsampling="shuffle"),
    "batch": Architecture(width=0.5, norm="batch"),
    "layer": Architecture(width=0.5, norm="layer"),
    "group": Architecture(width=0.5, norm="group"),
    "separable": Architecture(width=0.5, residual="separable"),
    "narrow": Architecture(width=0.25),
    "narrow distilled": Architecture(width=0.25),
    "wide": Architecture(width=1.0),
}
TEACHER = "wide"
LEARNING_RATE, EMA_DECAY, STYLE_PX = 4e-3, 0.98, 200
HELD_OUT = 4
"""Photographs at the end of the listing that no variant is trained on."""
TRIAL_PX = 512
TRIALS = 12


def setup_of(options: argparse.Namespace, teacher: torch.nn.Module | None) -> StepSetup:
    network = build_loss_network("pyramid", weights=None, source=None)
    style_HWC = load_short_side(options.style_image.read_bytes(), STYLE_PX)
    dtype = DTYPES[resolve_precision("auto")]
    target = style_target(network, normalize(torch.from_numpy(style_HWC.copy())[None]))
    return StepSetup(
        loss_network=network.to(dtype), target=target, weights=LossWeights(), dtype=dtype, max_gradient_norm=5.0,
        batch_size=options.batch, num_workers=1, micro_batch_size=options.batch, teacher=teacher, teacher_weight=10.0,
    )  # fmt: skip


def train(name: str, uris: list[str], options: argparse.Namespace) -> tuple[TransformerNet, float, float]:
    """Return the averaged network, the mean loss of the last steps and the processor seconds that it took."""
    teacher = None
    if name.endswith("distilled"):
        teacher = frozen_teacher(model_path(options, TEACHER).read_bytes(), TEACHER, DTYPES[resolve_precision("auto")])
    setup = setup_of(options, teacher)
    net = TransformerNet(VARIANTS[name])
    net.init_weights(0)
    state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
    model = ReducedPrecisionNet(state.net, setup.dtype)
    content = Content(
        Storage(), uris, crop_px=options.crop, short_side_px=options.crop * 3 // 2, cache_bytes=1 << 29,
        max_failed_fraction=0.05,
    )  # fmt: skip
    sampler = Sampler(len(uris), 0)
    batches = Batches(content, sampler, lambda step: sampler.share(step, options.batch, 0, 1))
    losses, start_s = [], time.process_time()
    for step, crops_NHWC in enumerate(batches.steps(0, options.steps)):
        batch_NCHW = normalize(torch.from_numpy(crops_NHWC)).contiguous(memory_format=torch.channels_last)
        state.set_rate(one_cycle(step, options.steps, LEARNING_RATE))
        result = train_step(model, state.optimizer, batch_NCHW, setup)
        state.count_step(result.is_finite, EMA_DECAY)
        losses.append(result.loss - setup.teacher_weight * result.teacher_loss)
    batches.close()
    net.load_state_dict(state.average)
    return net.eval(), float(np.mean(losses[-20:])), time.process_time() - start_s


@torch.inference_mode()
def held_out_loss(fast: FastNet, photos: list[np.ndarray], options: argparse.Namespace) -> float:
    """Return the mean loss of what the fast form paints, in float32."""
    network = build_loss_network("pyramid", weights=None, source=None)
    style_HWC = load_short_side(options.style_image.read_bytes(), STYLE_PX)
    target = style_target(network, normalize(torch.from_numpy(style_HWC.copy())[None]))
    losses = []
    for photo_HWC in photos:
        painted_NCHW, photo_NCHW = (
            normalize(torch.from_numpy(image.copy())[None]) for image in (fast.stylize(photo_HWC), photo_HWC)
        )
        losses.append(float(perceptual_loss(network, painted_NCHW, photo_NCHW, target, LossWeights()).total))
    return float(np.mean(losses))


def seconds_per_megapixel(fast: FastNet) -> float:
    """Return the fewest processor seconds of some tries."""
    grain = np.random.default_rng(0).integers(0, 256, (TRIAL_PX, TRIAL_PX, 3), dtype=np.uint8)
    fast.stylize(grain)
    seconds = []
    for _ in range(TRIALS):
        start_s = time.process_time()
        fast.stylize(grain)
        seconds.append(time.process_time() - start_s)
    return min(seconds) / (TRIAL_PX**2 / 1e6)


def model_path(options: argparse.Namespace, name: str) -> Path:
    return options.out / f"{name.replace(' ', '-')}.safetensors"


def run(name: str, options: argparse.Namespace) -> None:
    uris = list_content(Storage(), [str(options.content)])
    net, loss, train_s = train(name, uris[:-HELD_OUT], options)
    model = StyleModel(name=name, version="1", architecture=net.architecture, state_dict=net.state_dict(), metadata={})
    model_path(options, name).write_bytes(to_bytes(model))
    fast = FastNet(net, precision="auto", num_threads=1)
    photos = [load_short_side(Path(uri.removeprefix("file://")).read_bytes(), 256) for uri in uris[-HELD_OUT:]]
    grids = [grid_energy(fast.stylize(photo_HWC)).over(grid_energy(photo_HWC)).worst for photo_HWC in photos]
    found = {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "training_loss": loss,
        "held_out_loss": held_out_loss(fast, photos, options),
        "s_per_megapixel": seconds_per_megapixel(fast),
        "checkerboard": float(np.median(grids)),
        "training_s": train_s,
    }
    model_path(options, name).with_suffix(".json").write_text(json.dumps(found))
    painted_HWC = fast.stylize(photos[0])
    Image.fromarray(painted_HWC).save(model_path(options, name).with_suffix(".png"))
    Image.fromarray(photos[0]).save(options.out / "photo.png")
    print(json.dumps(found))


def merge(options: argparse.Namespace) -> None:
    print("| variant | parameters | loss in training | loss, held out | s per megapixel | checkerboard |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    cells = [("photograph", options.out / "photo.png")]
    for name in VARIANTS:
        path = model_path(options, name).with_suffix(".json")
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        print(
            f"| {name} | {found['parameters']:,} | {found['training_loss']:.3f} | {found['held_out_loss']:.3f} |"
            f" {found['s_per_megapixel']:.3f} | {found['checkerboard']:.1f} |"
        )
        cells.append((name, path.with_suffix(".png")))
    pictures = [(name, Image.open(path)) for name, path in cells]
    width, height = pictures[0][1].size
    columns = 5
    sheet = Image.new("RGB", (columns * (width + 4), -(-len(pictures) // columns) * (height + 18)), "white")
    for index, (name, picture) in enumerate(pictures):
        left, top = index % columns * (width + 4), index // columns * (height + 18)
        sheet.paste(picture, (left, top + 14))
        ImageDraw.Draw(sheet).text((left + 2, top + 1), name, fill="black")
    sheet.save(options.out / "variants.jpg", quality=82)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style-image", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--merge", action="store_true", help="print the table and write the contact sheet")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    unknown = set(options.names) - set(VARIANTS)
    if unknown:
        parser.error(f"unknown variants {', '.join(sorted(unknown))}; known are {', '.join(VARIANTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.names:
        run(name, options)
    if options.merge:
        merge(options)


if __name__ == "__main__":
    main()
