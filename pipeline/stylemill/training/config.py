"""What a user may choose about a training run.

Named sets of values for ``stylemill train --preset NAME``; docs/choosing-a-style.md shows what they give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from stylemill.config import check_at_least, check_within, parse_size, to_mapping
from stylemill.errors import ConfigError
from stylemill.nn.loss_weights import LossWeights
from stylemill.storage import StorageOptions
from stylemill.storage.uri import name as last_component

MIN_STYLE_PX = 8
"""What the loss networks' content layers take at least."""
MAX_SIDE_PX = 8192
_NUM_WORKERS = re.compile(r"(\d+)(?::(\d+))?")

MAY_CHANGE = (
    "registry",
    "steps",
    "num_workers",
    "cpus_per_worker",
    "checkpoint_every",
    "keep_checkpoints",
    "sample_every",
    "tensorboard",
    "patience",
    "micro_batch_size",
    "max_failed_fraction",
    "content_cache",
    "storage",
    "out",
)
"""Fields in which a resumed run may differ from the one that it continues."""

ADDED_LATER = ("norm", "residual", "teacher", "teacher_weight")
"""Fields that older runs and style models do not name; one that has its default is not named by newer ones either."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train one style.

    Raises:
        ConfigError: a value out of range.
    """

    style_image: str
    """Location of the style image."""

    content: tuple[str, ...]
    """Content images to train on: prefixes, globs, files, Parquet files of uris; may be repeated."""

    out: str
    """Output location; the same command again resumes."""

    name: str | None = None
    """Name of the style; by default the stem of the style image."""

    warm_start: str | None = None
    """Style model whose weights training starts from: a location, or registry:STYLE[@VERSION]."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    loss_network: Literal["pyramid", "vgg16", "vgg19"] = "pyramid"
    """What judges likeness: pyramid needs no download, vgg16 and vgg19 do (or --loss-weights)."""

    loss_weights: str | None = None
    """Location of the VGG's weights (torchvision's state dict), for clusters without internet."""

    steps: int = 2000
    """Updates of the weights."""

    num_workers: str = "1"
    """Training workers, or MIN:MAX to take what the cluster has."""

    cpus_per_worker: int | None = None
    """CPUs that each worker reserves and uses; by default the cluster's share of one worker."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the workers train."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; losses are always float32. auto takes bfloat16 where the hardware has it."""

    width: float = 1.0
    """Multiplier of the network's channel counts."""

    upsampling: Literal["nearest", "bilinear", "bicubic", "transposed", "shuffle"] = "nearest"
    """The network's upsampling blocks: an interpolation, transposed convolutions, or pixel shuffles."""

    norm: Literal["instance", "batch", "layer", "group"] = "instance"
    """What normalises features; batch takes the statistics of the crops that one worker handles at once."""

    residual: Literal["full", "separable"] = "full"
    """Convolutions of the residual blocks: full, or one for each channel and a 1x1 one that mixes them."""

    crop_px: int = 256
    """Side of the training crops, in pixels."""

    oversize: float = 1.5
    """Content images are resized to this many crops on their shorter side before cropping."""

    batch_size: int = 4
    """Crops per step, over all workers."""

    micro_batch_size: int | None = None
    """Crops that one worker handles at once; gradients of smaller portions add up."""

    style_size_px: int = 320
    """Shorter side of the style image as the loss sees it; smaller means finer strokes."""

    learning_rate: float = 1.5e-3
    """Highest rate of the one-cycle schedule; narrow networks and short runs bear more, as the preset quick has it."""

    content_weight: float = LossWeights.content
    """Weight of the likeness to the content image."""

    teacher: str | None = None
    """Style model whose pictures are learned as well, to make a wide style narrow: a location, or registry:STYLE."""

    teacher_weight: float = 10.0
    """Weight of the likeness to the teacher's picture, where there is a teacher."""

    style_weight: float = LossWeights.style
    """Weight of the likeness to the style image."""

    tv_weight: float = LossWeights.total_variation
    """Weight of smoothness."""

    grid_weight: float = LossWeights.grid
    """Weight against lines and checkerboards of 2 and 4 px, which upsampling leaves where nothing forbids it."""

    least_view: float = 0.6
    """The loss sees results at changing sizes, down to this share of theirs; at 1 networks come to paint lattices."""

    max_gradient_norm: float = 5.0
    """Gradients are clipped to this norm."""

    ema_decay: float = 0.98
    """Decay of the running mean of the weights, which is what is exported."""

    seed: int = 0
    """Decides initial weights, order of samples and crops."""

    checkpoint_every: int = 100
    """Steps between checkpoints."""

    keep_checkpoints: int = 2
    """Checkpoints that are kept."""

    sample_every: int = 250
    """Steps between sample pictures."""

    tensorboard: bool = False
    """Write event files for TensorBoard under OUT/tensorboard; needs `pip install 'stylemill[tensorboard]'`."""

    patience: int = 0
    """Stop early after so many checkpoints without a better mean loss; 0 never does."""

    max_failed_fraction: float = 0.05
    """Share of undecodable content images above which training stops."""

    content_cache: str = "512MiB"
    """Memory for decoded content images, so that small sets are decoded once."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name in ("style_image", "out"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a path or a URI")
        if not self.content:
            raise ConfigError("content", self.content, "names no images", "give --content URI")
        for name in ("steps", "batch_size", "checkpoint_every", "keep_checkpoints", "sample_every"):
            check_at_least(name, getattr(self, name), 1)
        check_within("style_size_px", self.style_size_px, MIN_STYLE_PX, MAX_SIDE_PX)
        for name in ("cpus_per_worker", "micro_batch_size"):
            if getattr(self, name) is not None:
                check_at_least(name, getattr(self, name), 1)
        check_at_least("patience", self.patience, 0)
        check_within("seed", self.seed, 0, 2**63 - 1)
        parse_size("content_cache", self.content_cache)
        check_within("crop_px", self.crop_px, 32, MAX_SIDE_PX)
        if self.crop_px % 4:
            raise ConfigError("crop_px", self.crop_px, "is no multiple of 4", f"use {self.crop_px // 4 * 4}")
        for name, low, high in (("width", 0.05, 4.0), ("oversize", 1.0, 8.0), ("learning_rate", 1e-7, 1.0)):
            check_within(name, getattr(self, name), low, high)
        check_within("max_gradient_norm", self.max_gradient_norm, 1e-6, 1e9)
        check_within("least_view", self.least_view, 0.25, 1.0)
        check_within("ema_decay", self.ema_decay, 0.0, 0.99999)
        check_within("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        self._check_loss()
        self._check_workers()

    def _check_loss(self) -> None:
        for name in ("content_weight", "style_weight", "tv_weight", "grid_weight", "teacher_weight"):
            check_within(name, getattr(self, name), 0.0, 1e9)
        if not (self.content_weight or self.style_weight or self.teacher):
            cure = "give --content-weight or --style-weight more than 0"
            raise ConfigError("style_weight", self.style_weight, "and content_weight leave nothing to learn", cure)
        if self.loss_weights is not None and self.loss_network == "pyramid":
            cure = "leave it out, or add --loss-network vgg16"
            raise ConfigError("loss_weights", self.loss_weights, "is of no use to the pyramid", cure)

    def _check_workers(self) -> None:
        low, high = self.worker_range
        if not 1 <= low <= high:
            raise ConfigError("num_workers", self.num_workers, "is no range", "write for example 2 or 1:4")
        if high > self.batch_size:
            cure = f"use at most {self.batch_size}, or a larger --batch-size"
            raise ConfigError("num_workers", self.num_workers, f"is more than batch_size {self.batch_size}", cure)

    @property
    def style_name(self) -> str:
        """Name of the style."""
        return self.name or last_component(self.style_image).rpartition(".")[0] or last_component(self.style_image)

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        match = _NUM_WORKERS.fullmatch(self.num_workers.strip())
        if match is None:
            raise ConfigError("num_workers", self.num_workers, "is neither a number nor MIN:MAX", "write 2 or 1:4")
        low = int(match[1])
        return low, int(match[2]) if match[2] else low


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return all fields, but for those that came later and have their default: equal trainings are named alike."""
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    return {
        name: value for name, value in to_mapping(config).items() if name not in ADDED_LATER or value != defaults[name]
    }


PRESETS: Mapping[str, Mapping[str, int | float | str]] = {
    "quick": {
        "width": 0.5,
        "crop_px": 160,
        "steps": 500,
        "sample_every": 100,
        # Short trainings of narrow networks come to no lattices, and faces stay clearer.
        "learning_rate": 4e-3,
        "least_view": 1.0,
    },
    "calm": {"style_weight": 6.0},
    "bold": {"style_weight": 40.0},
}
"""Fields of TrainConfig by name of the preset; the config file and flags override them."""
