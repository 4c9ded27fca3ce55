"""What a user may choose about the comparison of two styles.

What a user may choose about a vote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stylemill.config import check_at_least, check_one_of, check_within, inline
from stylemill.errors import ConfigError
from stylemill.evaluation.config import METRICS
from stylemill.storage import StorageOptions


@dataclass(frozen=True, kw_only=True)
class Rule:
    """By which rule a comparison decides; to be fixed before the figures are seen."""

    metric: tuple[str, ...] = ()
    """What is compared, by default total_loss; the first one decides, the others (give it again) must not get worse."""

    minimal_effect: float = 0.05
    """Smallest relative change of the first metric worth finding: 0.05 is five percent of the champion's mean."""

    minimal_win_rate: float = 0.6
    """Smallest share of preferred pictures worth finding by votes or a live split, above 0.5."""

    alpha: float = 0.05
    """Risk of seeing a difference where there is none, over all metrics together."""

    power: float = 0.8
    """Chance of finding the minimal effect if it is there; decides how many images are needed."""

    sequential: bool = False
    """Use tests that stay valid however often one looks while images or votes come in; they need more of them."""

    resamples: int = 9999
    """Bootstrap resamples."""

    seed: int = 0
    """Decides the bootstrap's draws."""

    def __post_init__(self) -> None:
        for name in self.metric:
            check_one_of("metric", name, METRICS)
        if len(set(self.metric)) < len(self.metric):
            raise ConfigError("metric", list(self.metric), "names one twice", "give each metric once")
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
    """Decide which of two styles is better.

    Raises:
        ConfigError: a value out of range.
    """

    evaluation: tuple[str, ...] = ()
    """OUT of `stylemill evaluate`; give it twice if the two models were measured in two runs."""

    champion: str | None = None
    """The model in use, as the evaluation names it, or registry:STYLE[@VERSION]; may be left out where there are just
    two."""

    candidate: str | None = None
    """The model that may take its place, named likewise."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    votes: tuple[str, ...] = ()
    """OUT of `stylemill vote`: people's preferences enter beside the metrics."""

    live: str | None = None
    """Parquet file of a live split: one row per unit with unit, variant (champion, candidate), success (true/false)."""

    experiment: str | None = None
    """Name of the live split's experiment; the variants are checked against its assignment then."""

    candidate_share: float = 0.5
    """Share of units that the live split gives to the candidate."""

    out: str | None = None
    """Where comparison.json, report/ and these settings (compare.yaml) go; nothing is written without it."""

    rule: Rule = inline(Rule)  # noqa: RUF009 (gives a field, as field() does)

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if bool(self.evaluation) == (self.live is not None):
            problem = "cannot be combined with live" if self.evaluation else "is missing, and so is live"
            cure = "give --evaluation OUT (with --votes OUT if there are any), or --live FILE.parquet"
            raise ConfigError("evaluation", list(self.evaluation), problem, cure)
        if self.live is not None and self.votes:
            raise ConfigError("votes", list(self.votes), "do not belong to a live split", "leave them out")
        if self.champion is not None and self.champion == self.candidate:
            raise ConfigError("candidate", self.candidate, "is the champion", "name two different models")
        check_within("candidate_share", self.candidate_share, 0.01, 0.99)


@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """Ask people which of two pictures they prefer, on a web page of this machine.

    Raises:
        ConfigError: a value out of range.
    """

    evaluation: str
    """OUT of `stylemill evaluate` with two or more models: its pictures are voted on."""

    out: str
    """Where votes/ goes, and these settings as vote.yaml; the same location again takes up where voters stopped."""

    model: tuple[str, ...] = ()
    """Vote on these models alone, as the evaluation names them, or registry:STYLE[@VERSION]; give it again for each."""

    registry: str | None = None
    """Registry that registry:STYLE means; by default the environment's STYLEMILL_REGISTRY."""

    num_images: int = 0
    """Vote on so many images, drawn evenly over the folders of the content; 0 takes all."""

    seed: int = 0
    """Decides images, order and sides."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody who reaches this machine vote under any name."""

    port: int = 8765
    """Port to listen on; 0 takes a free one."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name in ("evaluation", "out", "host"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a location" if name != "host" else "write an address")
        if len(self.model) == 1:
            raise ConfigError("model", list(self.model), "is one model alone", "give --model for each of two or more")
        check_at_least("num_images", self.num_images, 0)
        check_within("port", self.port, 0, 65535)
