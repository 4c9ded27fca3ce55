"""A training step against the published loop of pytorch/examples (fast_neural_style), on the same machine.

    python benchmarks/training.py --peer-pytorch-examples DIR --content DIR --style-image FILE [--rounds 3]

DIR is a checkout of github.com/pytorch/examples. Both train on batches of four 256 px crops against the VGG-16
architecture with the same random weights (speed does not depend on them, and nothing is downloaded): the published loop
its network, stylemill the same one of full width and its default of half width, in float32 and in the precision that
auto chooses. What is timed is the time from one optimizer step to the next, reading and decoding included; the first
step of each round is left out. All run interleaved in one process; medians and ratios are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook

from stylemill.images.short_side import resize_short_side
from stylemill.nn.loss_networks.vgg import VggLossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import style_target
from stylemill.nn.pixels import normalize
from stylemill.nn.precision import DTYPES, resolve_precision
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.training.checkpoint import TrainState
from stylemill.training.data import Batches, Content, list_content
from stylemill.training.schedule import Sampler
from stylemill.training.train_step import ReducedPrecisionNet, StepSetup, train_step

BATCH, CROP_PX, STEPS_PER_ROUND = 4, 256, 4
PUBLISHED = "published loop"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class StepTimes:
    """Seconds from each optimizer step to the next, whosever optimizer it is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: list[float] = []
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: object) -> None:
        self._marks.append(self._clock())

    def of(self, run: Callable[[], None]) -> list[float]:
        """Run a few steps and return the times between them."""
        self._marks.clear()
        run()
        return [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]


def make_peer(folder: Path, content: Path, style_image: Path, scratch: Path) -> Callable[[], None]:
    """Return one round of the published loop, unchanged but for the source of VGG's weights."""
    import torchvision

    Image.ANTIALIAS = Image.Resampling.LANCZOS  # type: ignore[attr-defined]  # its name before Pillow 10

    random_vgg = torchvision.models.vgg16
    torchvision.models.vgg16 = lambda **_: random_vgg(weights=None)
    sys.path.insert(0, str(folder / "fast_neural_style" / "neural_style"))
    import neural_style

    images = sorted(path for path in content.iterdir() if path.is_file())[: BATCH * STEPS_PER_ROUND]
    (scratch / "dataset" / "one").mkdir(parents=True)
    for number, path in enumerate(images):
        (scratch / "dataset" / "one" / f"{number:03d}.jpg").symlink_to(path.resolve())
    arguments = argparse.Namespace(
        accel=False, seed=0, image_size=CROP_PX, dataset=str(scratch / "dataset"), batch_size=BATCH, lr=1e-3,
        style_image=str(style_image), style_size=CROP_PX, epochs=1, content_weight=1e5, style_weight=1e10,
        log_interval=10**6, checkpoint_model_dir=None, save_model_dir=str(scratch),
    )  # fmt: skip
    return lambda: neural_style.train(arguments)


def make_ours(content: Path, style_image: Path, *, precision: str, width: float) -> Callable[[], None]:
    """Return one round of our step with everything around it that the worker has, but for Ray."""
    import torchvision

    dtype = DTYPES[precision]
    network = VggLossNetwork("vgg16", torchvision.models.vgg16(weights=None).state_dict())
    style_HWC = resize_short_side(Image.open(style_image).convert("RGB"), CROP_PX)
    target = style_target(network, normalize(torch.from_numpy(np.array(Image.fromarray(style_HWC)))[None]))
    setup = StepSetup(
        loss_network=network.to(memory_format=torch.channels_last).to(dtype), targets=[target], weights=LossWeights(),
        dtype=dtype, max_gradient_norm=10.0, batch_size=BATCH, num_workers=1, micro_batch_size=BATCH,
    )  # fmt: skip
    storage = Storage()
    listed = list_content(storage, [str(content)])

    def run() -> None:
        net = TransformerNet(Architecture(width=width))
        net.init_weights(0)
        state = TrainState.fresh(net.train().to(memory_format=torch.channels_last))
        state.set_rate(1e-3)
        model = ReducedPrecisionNet(state.net, dtype)
        images = Content(
            storage, listed, crop_px=CROP_PX, short_side_px=CROP_PX * 3 // 2, cache_bytes=0, max_failed_fraction=0.05
        )  # no cache: every image is decoded, as by the published loop
        sampler = Sampler(len(listed), 0)
        batches = Batches(images, sampler, lambda step: sampler.share(step, BATCH, 0, 1))
        for crops_NHWC in batches.steps(0, STEPS_PER_ROUND):
            batch_NCHW = normalize(torch.from_numpy(crops_NHWC)).contiguous(memory_format=torch.channels_last)
            result = train_step(model, state.optimizer, batch_NCHW, setup)
            state.count_step(result.is_finite, 0.98)
        batches.close()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-pytorch-examples", type=Path, required=True)
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style-image", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu counts this process's seconds, for a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    times = StepTimes(CLOCKS[arguments.clock])
    with tempfile.TemporaryDirectory() as scratch:
        peer = make_peer(arguments.peer_pytorch_examples, arguments.content, arguments.style_image, Path(scratch))
        loops = {PUBLISHED: peer}
        for precision in dict.fromkeys(("float32", resolve_precision("auto"))):
            for width in (1.0, 0.5):
                loops[f"stylemill, width {width}, {precision}"] = make_ours(
                    arguments.content, arguments.style_image, precision=precision, width=width
                )
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(arguments.rounds):
            for name, loop in loops.items():
                seconds[name] += times.of(loop)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median_s in medians.items():
        ratio = medians[PUBLISHED] / median_s
        print(f"{name:<30} {median_s:7.2f} s per step of {BATCH}, {BATCH / median_s:6.2f} images/s, {ratio:5.2f} times")


if __name__ == "__main__":
    main()
