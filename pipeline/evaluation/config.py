"""What a user may choose about measuring styles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.checks import check_at_least, check_within
from pipeline.config import inline
from pipeline.errors import ConfigError
from pipeline.nn.loss_weights import LossWeights
from pipeline.storage import StorageOptions

MIN_SIDE_PX = 64
"""The grid is measured in windows of this size."""


@dataclass(frozen=True, kw_only=True)
class Judge:
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

    judge: Judge = inline(Judge)  # noqa: RUF009 (gives a field, as field() does)

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
