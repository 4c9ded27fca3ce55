"""What a user may choose about retraining."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from stylemill.config import check_at_least
from stylemill.errors import ConfigError
from stylemill.experiments.config import Rule
from stylemill.training.config import TrainConfig

WEBHOOK_VARIABLE = "STYLEMILL_WEBHOOK"
"""Names the webhook where a config that others may read should not."""
_URL_BEGINNINGS = ("http://", "https://")
_FIRING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class RetrainConfig(TrainConfig):
    """Train a candidate, compare it with the champion, and promote it if it is better.

    The fields of ``stylemill train`` say how the candidate is trained; ``out`` is where firings keep their work.

    Raises:
        ConfigError: a value out of range.
    """

    holdout: str = ""
    """Images to compare on, which no training sees: a prefix, glob, file or Parquet file of uris."""

    start: Literal["champion", "scratch"] = "champion"
    """Where training starts from: the champion's weights, or random ones (as it does while there is no champion)."""

    firing: str | None = None
    """Name of this firing, kept by its retries; by default a hash of what it trains on, so that nothing new means
    nothing to do."""

    metric: tuple[str, ...] = ()
    """What is compared, by default total_loss; the first one decides, the others must not get worse."""

    minimal_effect: float = 0.02
    """Smallest relative change worth finding; with too few images to find it nothing is promoted."""

    alpha: float = 0.05
    """Risk of promoting or refusing for a difference that is none, over all metrics together."""

    power: float = 0.8
    """Chance of finding the minimal effect if it is there."""

    num_images: int = 64
    """Compare on so many images, drawn evenly over the folders of the holdout; 0 takes all."""

    size_px: int = 256
    """Images are compared with their shorter side at this many pixels."""

    webhook: str | None = None
    """URL that gets the outcome as JSON, by default the environment's STYLEMILL_WEBHOOK; signed if the environment
    holds STYLEMILL_WEBHOOK_SECRET."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.holdout:
            raise ConfigError("holdout", self.holdout, "is missing", "give images that no training sees")
        if self.firing is not None and not _FIRING.fullmatch(self.firing):
            cure = "use letters, digits, '.', '_' and '-', at most 128"
            raise ConfigError("firing", self.firing, "cannot name a folder everywhere", cure)
        if self.warm_start is not None:
            cure = "leave it out; --start champion|scratch decides"
            raise ConfigError("warm_start", self.warm_start, "is chosen by retraining itself", cure)
        check_at_least("num_images", self.num_images, 0)
        _ = self.rule  # checks its fields
        if self.webhook is not None and not self.webhook.startswith(_URL_BEGINNINGS):
            raise ConfigError("webhook", self.webhook, "is no URL", "write https://HOST/PATH")

    @property
    def rule(self) -> Rule:
        """By which rule candidate and champion are compared."""
        return Rule(metric=self.metric, minimal_effect=self.minimal_effect, alpha=self.alpha, power=self.power)

    def train_config(self, *, out: str, warm_start: str | None) -> TrainConfig:
        """Return the config of one candidate's training."""
        values = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        return replace(TrainConfig(**values), out=out, warm_start=warm_start)


def webhook_from(config: RetrainConfig, environment: Mapping[str, str]) -> str | None:
    """Return the webhook that the config or the environment names, or None.

    Raises:
        ConfigError: the environment's is no URL.
    """
    found = config.webhook or environment.get(WEBHOOK_VARIABLE) or None
    if found is not None and not found.startswith(_URL_BEGINNINGS):
        raise ConfigError(WEBHOOK_VARIABLE, "***", "in the environment is no URL", "write https://HOST/PATH")
    return found
