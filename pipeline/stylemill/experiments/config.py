"""Settings of ``stylemill compare`` and ``stylemill vote``, and the rule by which a comparison decides."""

from __future__ import annotations

from dataclasses import dataclass, field

from stylemill.config import check_at_least, check_one_of, check_within, inline
from stylemill.errors import ConfigError
from stylemill.evaluation.config import METRICS
from stylemill.storage import StorageOptions


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rule by which a comparison decides; choose it before looking at the results."""

    metric: tuple[str, ...] = ()
    """Metric to compare, by default total_loss; repeat it for more: the first decides, no other may get worse."""

    minimal_effect: float = 0.05
    """Smallest relative change of the first metric worth detecting: 0.05 is five percent of the champion's mean."""

    minimal_win_rate: float = 0.6
    """Smallest share of preferred pictures worth detecting by votes or a live split, above 0.5."""

    alpha: float = 0.05
    """Probability of reporting a difference that does not exist, over all metrics together."""

    power: float = 0.8
    """Probability of detecting the minimal effect if it exists; determines the number of images needed."""

    sequential: bool = False
    """Use tests that stay valid if results are checked repeatedly while images or votes arrive; they need more data."""

    resamples: int = 9999
    """Number of bootstrap resamples."""

    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        for name in self.metric:
            check_one_of("metric", name, METRICS)
        if len(set(self.metric)) < len(self.metric):
            raise ConfigError("metric", list(self.metric), "contains a metric twice", "give each metric once")
        check_within("minimal_effect", self.minimal_effect, 1e-6, 10.0)
        check_within("minimal_win_rate", self.minimal_win_rate, 0.51, 0.99)
        check_within("alpha", self.alpha, 1e-6, 0.5)
        check_within("power", self.power, 0.5, 0.999)
        check_at_least("resamples", self.resamples, 999)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, the deciding one first."""
        return self.metric or ("total_loss",)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of the comparison of two styles.

    Raises:
        ConfigError: a value is out of range.
    """

    evaluation: tuple[str, ...] = ()
    """OUT of `stylemill evaluate`; give it twice if the two models were measured in two runs."""

    champion: str | None = None
    """The model in use: its label in the evaluation, or registry:STYLE[@VERSION]; optional if there are only two."""

    candidate: str | None = None
    """The model that may replace it: its label in the evaluation, or registry:STYLE[@VERSION]."""

    registry: str | None = None
    """Registry of registry:STYLE; by default STYLEMILL_REGISTRY of the environment."""

    votes: tuple[str, ...] = ()
    """OUT of `stylemill vote`, to compare preferences of people in addition to the metrics; repeat it for more."""

    live: str | None = None
    """Parquet file of a live split: one row per unit with unit, variant (champion, candidate), success (true/false)."""

    experiment: str | None = None
    """Name of the experiment of the live split; if given, the variants are checked against its assignment."""

    candidate_share: float = 0.5
    """Share of units that the live split assigns to the candidate."""

    out: str | None = None
    """Output location: comparison.json, report/, and these settings as compare.yaml; by default nothing is written."""

    rule: Rule = inline(Rule)  # noqa: RUF009 (returns a field, as field() does)

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if bool(self.evaluation) == (self.live is not None):
            problem = "cannot be combined with live" if self.evaluation else "is required unless live is given"
            cure = "give --evaluation OUT (with --votes OUT if there are any), or --live FILE.parquet"
            raise ConfigError("evaluation", list(self.evaluation), problem, cure)
        if self.live is not None and self.votes:
            raise ConfigError("votes", list(self.votes), "cannot be combined with live", "leave them out")
        if self.champion is not None and self.champion == self.candidate:
            raise ConfigError("candidate", self.candidate, "is the champion", "name two different models")
        check_within("candidate_share", self.candidate_share, 0.01, 0.99)


@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """Settings of a vote on a web page of this machine.

    Raises:
        ConfigError: a value is out of range.
    """

    evaluation: str
    """OUT of `stylemill evaluate` with two or more models: its pictures are voted on."""

    out: str
    """Output location: votes/, and these settings as vote.yaml; with the same location, voters continue."""

    model: tuple[str, ...] = ()
    """Model to vote on: its label in the evaluation, or registry:STYLE[@VERSION]; repeat it for each; default all."""

    registry: str | None = None
    """Registry of registry:STYLE; by default STYLEMILL_REGISTRY of the environment."""

    num_images: int = 0
    """Number of images to vote on, drawn in proportion to the folders of the content; 0 takes all."""

    seed: int = 0
    """Seed of the choice of images, their order and sides."""

    host: str = "127.0.0.1"
    """Address to listen on; with 0.0.0.0 everybody who can reach this machine can vote under any name."""

    port: int = 8765
    """Port to listen on; 0 takes a free one."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name in ("evaluation", "out", "host"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a location" if name != "host" else "write an address")
        if len(self.model) == 1:
            raise ConfigError("model", list(self.model), "is only one model", "give --model for each of two or more")
        check_at_least("num_images", self.num_images, 0)
        check_within("port", self.port, 0, 65535)
