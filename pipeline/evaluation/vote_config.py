"""What a user may choose about a vote."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.checks import check_at_least, check_within
from pipeline.errors import ConfigError
from pipeline.storage import StorageOptions


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
