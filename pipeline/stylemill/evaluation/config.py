"""Settings of ``stylemill evaluate`` and ``stylemill optimize``, and the names of the metrics.

``check_installed`` reports a missing package of the extra ``evaluation`` before anything runs. This module imports
neither torch nor ray, so that the command line can read it quickly.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Final, Literal

from stylemill.config import check_at_least, check_within, inline
from stylemill.errors import ConfigError
from stylemill.nn.loss_weights import LayerWeights, LossWeights, chosen_layers
from stylemill.storage import StorageOptions

METRICS: Final = (
    "total_loss",
    "content_loss",
    "style_loss",
    "tv_loss",
    "grid_loss",
    "checkerboard",
    "diagonals",
    "rim",
    "halo",
    "blobs",
    "color_shift",
    "structural_similarity",
    "crop_difference",
    "seconds",
)
"""Metric columns of the table of measurements."""
HIGHER_IS_BETTER: Final = frozenset({"structural_similarity"})
"""All other metrics are better when lower; for ``color_shift`` lower only means closer to the colours of the source."""

MIN_SIDE_PX = 64
"""Shorter side of the smallest image that can be measured: the size of the windows of the grid metrics."""


def check_installed() -> None:
    """Raise ConfigError unless the packages of the extra ``evaluation`` are installed; imports none of them."""
    for package in ("skimage", "scipy", "statsmodels"):
        if importlib.util.find_spec(package) is None:
            cure = "pip install 'stylemill[evaluation]'"
            raise ConfigError("evaluation", package, "is not installed", cure)


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Settings of the loss of the measurements; equal for all models, so that figures are comparable."""

    style_image: str | None = None
    """Location of the style image; required by optimize; evaluate defaults to the first model's."""

    style_size_px: int = 320
    """Shorter side of the style image in the loss, in pixels."""

    loss_network: Literal["pyramid", "vgg16", "vgg19"] = "vgg16"
    """Network that computes content and style loss."""

    loss_weights: str = "auto"
    """Weights of the VGG: hed, torchvision, a location, or auto, as in `stylemill train`."""

    content_layers: str | None = None
    """Layers of the content loss with their shares, as in `stylemill train`."""

    style_layers: str | None = None
    """Layers of the style loss with their shares, as in `stylemill train`."""

    content_weight: float = LossWeights.content
    """Weight of the content loss in total_loss."""

    style_weight: float = LossWeights.style
    """Weight of the style loss in total_loss."""

    tv_weight: float = LossWeights.total_variation
    """Weight of the total variation (smoothness) in total_loss."""

    grid_weight: float = LossWeights.grid
    """Weight of the penalty on lines and checkerboards of 2 and 4 px in total_loss."""

    def __post_init__(self) -> None:
        check_at_least("style_size_px", self.style_size_px, MIN_SIDE_PX)
        for name in ("content_weight", "style_weight", "tv_weight", "grid_weight"):
            check_within(name, getattr(self, name), 0.0, 1e9)
        if self.loss_weights != "auto" and self.loss_network == "pyramid":
            cure = "leave it out, or choose --loss-network vgg16"
            raise ConfigError("loss_weights", self.loss_weights, "pyramid has no weights to load", cure)
        _ = self.layer_weights

    @property
    def layer_weights(self) -> LayerWeights:
        """The layers that the loss compares."""
        return chosen_layers(self.loss_network, self.content_layers, self.style_layers)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of an evaluation: one or more styles, measured on the same images.

    Raises:
        ConfigError: a value is out of range.
    """

    model: tuple[str, ...]
    """Style model: a location, or registry:STYLE[@VERSION]; repeat it to measure several on the same images."""

    content: str
    """Images to measure on: a prefix, a glob, a file, or a list of locations."""

    out: str
    """Output location: evaluation.parquet, images/, report/, and these settings as evaluate.yaml."""

    registry: str | None = None
    """Registry of registry:STYLE; by default STYLEMILL_REGISTRY of the environment."""

    judge: JudgeConfig = inline(JudgeConfig)  # noqa: RUF009 (returns a field, as field() does)

    num_images: int = 64
    """Number of images to measure on, drawn in proportion to the folders of the content; 0 takes all."""

    seed: int = 0
    """Seed of the draw of images."""

    size_px: int = 256
    """Shorter side at which images are measured, in pixels; smaller images keep their size."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the styles' networks; the loss is always float32."""

    yardstick: bool = False
    """Also optimise pixels directly (L-BFGS, from content) and report how many iterations a network equals."""

    yardstick_images: int = 3
    """Number of images on which the yardstick runs."""

    yardstick_iterations: int = 500
    """Iterations of the yardstick on each image, at least 50."""

    pictures: int = 12
    """Number of images on the page."""

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
    """Settings of painting one picture by optimising its pixels, without a network.

    Raises:
        ConfigError: a value is out of range.
    """

    content: str
    """Location of the image to repaint."""

    out: str
    """Output location: result.png, curve.parquet, report/, and these settings as optimize.yaml."""

    judge: JudgeConfig = inline(JudgeConfig)  # noqa: RUF009 (returns a field, as field() does)

    iterations: int = 300
    """Number of updates of the pixels."""

    optimizer: Literal["lbfgs", "adam", "sgd"] = "lbfgs"
    """L-BFGS-B within the range of 8-bit pixels, Adam, or gradient descent with momentum."""

    start: Literal["content", "noise"] = "content"
    """Initial picture: the content image, or noise."""

    gram: Literal["full", "diagonal"] = "full"
    """What the style loss compares: full Gram matrices, or only their diagonals (the energy of each channel)."""

    learning_rate: float | None = None
    """Learning rate of adam (default 0.05) or sgd (default 30); lbfgs finds its step sizes with a line search."""

    size_px: int = 256
    """Shorter side at which the image is painted, in pixels; a smaller image keeps its size."""

    seed: int = 0
    """Seed of the noise."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name in ("content", "out"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a path or a URI")
        if not self.judge.style_image:
            cure = "give --style-image"
            raise ConfigError("style_image", self.judge.style_image, "is required", cure)
        check_at_least("iterations", self.iterations, 1)
        check_at_least("size_px", self.size_px, MIN_SIDE_PX)
        if self.learning_rate is not None and self.optimizer == "lbfgs":
            cure = "leave it out, or choose --optimizer adam or sgd"
            raise ConfigError("learning_rate", self.learning_rate, "cannot be combined with lbfgs", cure)
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ConfigError("learning_rate", self.learning_rate, "is not above 0", "write a number above 0")
