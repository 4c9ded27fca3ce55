"""Settings of retraining."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from stylemill.config import check_at_least
from stylemill.errors import ConfigError
from stylemill.experiments.config import Rule
from stylemill.training.config import TrainConfig

CHAMPION: Final = "champion"
WEBHOOK_VARIABLE = "STYLEMILL_WEBHOOK"
"""Environment variable with the URL of the webhook, for configs that other people may read."""
_URL_PREFIXES = ("http://", "https://")
_FIRING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class RetrainConfig(TrainConfig):
    """Train a candidate, compare it with the champion, and promote it if it is better.

    The fields of ``stylemill train`` configure the training of the candidate; ``out`` holds the files of all firings.

    Raises:
        ConfigError: a value is out of range.
    """

    holdout: str = ""
    """Images to compare on, not used in training: a prefix, glob, file or list of locations."""

    start: str = CHAMPION
    """Initial weights of the training: champion (builtin if there is none), builtin, scratch, or a style model."""

    firing: str | None = None
    """Name of this firing, the same for its retries; by default a hash of the training inputs, so that without new
    inputs nothing is done."""

    metric: tuple[str, ...] = ()
    """Metrics to compare, by default total_loss; the first one decides, the others must not get worse."""

    minimal_effect: float = 0.02
    """Smallest relative change worth detecting; with too few images to detect it nothing is promoted."""

    alpha: float = 0.05
    """Probability of a decision for a difference that does not exist, over all metrics together."""

    power: float = 0.8
    """Probability of detecting the minimal effect if it exists."""

    num_images: int = 64
    """Number of images to compare on, drawn in proportion to the folders of the holdout; 0 takes all."""

    size_px: int = 256
    """Shorter side of the images that are compared, in pixels."""

    webhook: str | None = None
    """URL to which the outcome is posted as JSON, by default STYLEMILL_WEBHOOK of the environment; signed if the
    environment has STYLEMILL_WEBHOOK_SECRET."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.holdout:
            raise ConfigError("holdout", None, "is required", "give images that are not used in training")
        if self.firing is not None and not _FIRING.fullmatch(self.firing):
            cure = "use letters, digits, '.', '_' and '-', at most 128"
            raise ConfigError("firing", self.firing, "cannot name a folder on every system", cure)
        if len(self.style_names) > 1 or self.add_to is not None:
            cure = "retrain each style on its own: leave --add-to and --with-photo out, and give one --style-image"
            raise ConfigError("style_image", list(self.style_image), "is to be retrained as one of several", cure)
        if self.style_colors != "own":
            problem = "cannot be judged: the comparison measures the distance to the style image's own colours"
            raise ConfigError("style_colors", self.style_colors, problem, "leave it out")
        check_at_least("num_images", self.num_images, 0)
        _ = self.rule  # its constructor checks the fields
        if self.webhook is not None and not self.webhook.startswith(_URL_PREFIXES):
            raise ConfigError("webhook", self.webhook, "is not a URL", "write https://HOST/PATH")

    @property
    def rule(self) -> Rule:
        """Rule by which candidate and champion are compared."""
        return Rule(metric=self.metric, minimal_effect=self.minimal_effect, alpha=self.alpha, power=self.power)

    def train_config(self, *, out: str, start: str) -> TrainConfig:
        """Return the config of one candidate's training."""
        values = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        return replace(TrainConfig(**values), out=out, start=start)


def webhook_from(config: RetrainConfig, environment: Mapping[str, str]) -> str | None:
    """Return the webhook of the config, else of the environment, else None.

    Raises:
        ConfigError: the one of the environment is not a URL.
    """
    found = config.webhook or environment.get(WEBHOOK_VARIABLE) or None
    if found is not None and not found.startswith(_URL_PREFIXES):
        raise ConfigError(WEBHOOK_VARIABLE, "***", "in the environment is not a URL", "write https://HOST/PATH")
    return found
