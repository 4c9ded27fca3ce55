"""What a user may choose about painting one picture by direct optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.checks import check_at_least
from pipeline.config import inline
from pipeline.errors import ConfigError
from pipeline.evaluation.config import MIN_SIDE_PX, Judge
from pipeline.storage import StorageOptions


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

    judge: Judge = inline(Judge)  # noqa: RUF009 (gives a field, as field() does)

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
