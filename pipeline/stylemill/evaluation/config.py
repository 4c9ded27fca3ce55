"""The metrics by which styles can be compared.

Whether the packages of the extra ``evaluation`` are there.

What a user may choose about measuring styles.

What a user may choose about painting one picture by direct optimisation.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Final, Literal

from stylemill.config import check_at_least, check_within, inline
from stylemill.errors import ConfigError
from stylemill.nn.loss_weights import LossWeights
from stylemill.storage import StorageOptions

METRICS: Final = (
    "total_loss",
    "content_loss",
    "style_loss",
    "tv_loss",
    "grid_loss",
    "checkerboard",
    "color_shift",
    "structural_similarity",
    "seconds",
)
"""Columns of the table of measurements."""
HIGHER_IS_BETTER: Final = frozenset({"structural_similarity"})
"""Of all others less is better. ``color_shift`` has no good direction of its own: less keeps more."""


def check_installed() -> None:
    """Raise ConfigError unless the packages of the extra ``evaluation`` are there; imports none of them."""
    for package in ("skimage", "scipy", "statsmodels"):
        if importlib.util.find_spec(package) is None:
            cure = "pip install 'stylemill[evaluation]'"
            raise ConfigError("evaluation", package, "is a package that this environment lacks", cure)


MIN_SIDE_PX = 64
"""The grid is measured in windows of this size."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Under which loss everything is measured: the same for all models, or the figures could not be compared."""

    style_image: str | None = None
    """Location of the style image; by default the one that the first model was trained on."""

    style_size_px: int = 320
    """Shorter side of the style image as the loss sees it, in pixels."""

    loss_network: Literal["pyramid", "vgg16", "vgg19"] = "pyramid"
    """What judges likeness."""

    loss_weights: str | None = None
    """Location of the VGG's weights, for machines without internet."""

    content_weight: float = LossWeights.content
    """Weight of the likeness to the content image in total_loss."""

    style_weight: float = LossWeights.style
    """Weight of the likeness to the style image in total_loss."""

    tv_weight: float = LossWeights.total_variation
    """Weight of smoothness in total_loss."""

    grid_weight: float = LossWeights.grid
    """Weight against lines and checkerboards of 2 and 4 px in total_loss."""

    def __post_init__(self) -> None:
        check_at_least("style_size_px", self.style_size_px, MIN_SIDE_PX)
        for name in ("content_weight", "style_weight", "tv_weight", "grid_weight"):
            check_within(name, getattr(self, name), 0.0, 1e9)
        if self.loss_weights is not None and self.loss_network == "pyramid":
            cure = "leave it out, or choose --loss-network vgg16"
            raise ConfigError("loss_weights", self.loss_weights, "pyramid has no weights to load", cure)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure what one or more styles do to the same images.

    Raises:
        ConfigError: a value out of range.
    """

    model: tuple[str, ...]
    """Style model: a location, or registry:STYLE[@VERSION]; repeat it to measure several on the same images."""

    content: str
    """Images to measure on: a prefix, a glob, a file, or a Parquet file of uris."""

    out: str
    """Output location: evaluation.parquet, images/, report/, and these settings as evaluate.yaml."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    judge: JudgeConfig = inline(JudgeConfig)  # noqa: RUF009 (gives a field, as field() does)

    num_images: int = 64
    """Measure on so many images, drawn evenly over the folders of the content; 0 takes all."""

    seed: int = 0
    """Decides which images are drawn."""

    size_px: int = 256
    """Images are measured with their shorter side at this many pixels; smaller ones keep their size."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the styles' networks; the loss is always float32."""

    yardstick: bool = False
    """Also optimise pixels directly (L-BFGS, from content) and say to how many iterations a network is equal."""

    yardstick_images: int = 3
    """So many images get the yardstick."""

    yardstick_iterations: int = 500
    """Iterations of the yardstick on each image, from 50."""

    pictures: int = 12
    """So many images are shown on the page."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model", None, "is required", "give --model, once for each style")
        for name in ("content", "out"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a path or a URI")
        check_at_least("num_images", self.num_images, 0)
        check_at_least("size_px", self.size_px, MIN_SIDE_PX)
        check_at_least("yardstick_images", self.yardstick_images, 1)
        check_at_least("yardstick_iterations", self.yardstick_iterations, 50)
        check_at_least("pictures", self.pictures, 0)


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """Paint one picture by optimising its pixels, without a network.

    Raises:
        ConfigError: a value out of range.
    """

    content: str
    """Location of the image to repaint."""

    out: str
    """Output location: result.png, curve.parquet, report/, and these settings as optimize.yaml."""

    judge: JudgeConfig = inline(JudgeConfig)  # noqa: RUF009 (gives a field, as field() does)

    iterations: int = 300
    """Updates of the pixels."""

    optimizer: Literal["lbfgs", "adam", "sgd"] = "lbfgs"
    """What takes the steps: L-BFGS-B within the bounds of 8 bits, Adam, or plain descent with momentum."""

    start: Literal["content", "noise"] = "content"
    """Begin with the content image or with noise."""

    gram: Literal["full", "diagonal"] = "full"
    """What the style term compares: whole Gram matrices, or their diagonals (the energy of each channel) alone."""

    learning_rate: float | None = None
    """Of adam (by default 0.05) and sgd (30); lbfgs finds its own steps."""

    size_px: int = 256
    """The image is painted with its shorter side at this many pixels; a smaller one keeps its size."""

    seed: int = 0
    """Of the noise."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name in ("content", "out"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a path or a URI")
        if not self.judge.style_image:
            cure = "give --style-image with the image whose style is wanted"
            raise ConfigError("style_image", self.judge.style_image, "is required", cure)
        check_at_least("iterations", self.iterations, 1)
        check_at_least("size_px", self.size_px, MIN_SIDE_PX)
        if self.learning_rate is not None and self.optimizer == "lbfgs":
            cure = "leave it out, or choose --optimizer adam or sgd"
            raise ConfigError("learning_rate", self.learning_rate, "does not go with lbfgs", cure)
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ConfigError("learning_rate", self.learning_rate, "is not above zero", "write a number above 0")
