"""Settings of a bulk run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from stylemill.builtin import models_or_builtin
from stylemill.config import check_within, inline
from stylemill.errors import ConfigError
from stylemill.images.options import DecodeOptions, EncodeOptions
from stylemill.painting.options import PaintOptions
from stylemill.storage import StorageOptions
from stylemill.stylizing.style_rule import StyleRule

MAX_PAINT_TIMEOUT_S = 1e6
"""For each style and 5 megapixels: eleven days."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Settings of ``stylemill stylize``.

    Raises:
        ConfigError: a value is out of range.
    """

    model: tuple[str, ...] = ()
    """Style model: a location, FILE#STYLE, registry:STYLE[@VERSION], or builtin, the styles that come with stylemill
    and the default of --style; repeat to paint several styles in one pass."""

    style: tuple[str, ...] = ()
    """Style of the models, or a mixture such as wave:0.7,ink:0.3; may be repeated. By default all styles."""

    look: Literal["image", "folder", "library"] = "image"
    """Paint each picture by its own light and contrast (image), or all alike, by those of a sample of the sources
    (library) or of its folder (folder), which stays the same for all runs over them into this output."""

    style_by: str | None = None
    """Paint each source in one style: key (a seeded hash of its key decides), folder (the first folder of its key has
    the style's name), or column:NAME (of the list given as --input). By default each is painted in all styles."""

    style_seed: int = 0
    """Seed of --style-by key."""

    input: str
    """Sources: a prefix or directory, a glob, one file, or a list of locations: a Parquet or CSV file with a uri (and
    optionally a key) column, or a text file (.txt, .lst) with one per line."""

    out: str
    """Output location; the same command again resumes, and other styles may share it."""

    registry: str | None = None
    """Location of the registry for registry:STYLE; defaults to the environment variable STYLEMILL_REGISTRY."""

    run_id: str | None = None
    """Name of the run; defaults to a hash of input, output, fingerprint and styles."""

    incremental: bool = False
    """Paint only sources that are new or changed since the committed runs of this output, in a new run."""

    retry_failed: bool = False
    """Paint only sources that failed in the committed runs of this output, in a new run."""

    paint: PaintOptions = inline(PaintOptions)  # noqa: RUF009 (a field)

    stages: Literal["auto", "fused", "separate"] = "auto"
    """Read, paint and write in one actor (fused) or in separate actors; auto means separate on a GPU, else fused."""

    batch_size: int = 8
    """Images of equal size that a GPU paints at once; halved if they do not fit its memory."""

    gpu_decode: bool = False
    """Decode plain JPEGs on the GPU (nvJPEG), in the process that paints: only for sources that you trust."""

    runner: Literal["auto", "ray", "local"] = "auto"
    """What runs the workers: a Ray cluster, or this process alone (local), which starts sooner; auto means local on a
    CPU for at most 500 sources, unless RAY_ADDRESS names a cluster."""

    num_actors: int | None = None
    """Number of painting actors; defaults to one per CPU (or GPU) of the cluster, if memory allows."""

    threads_per_actor: int = 1
    """CPUs that each actor reserves and uses for the network. A local run takes up to 4 for each worker if this and
    num_actors are left alone. Images that are painted in tiles then also use cores of this machine that are idle."""

    paint_timeout_s: float = 600.0
    """Seconds after which an image counts as stuck, for each style and each started 5 megapixels; it then fails with
    PaintTimeout."""

    max_failed_fraction: float = 0.05
    """Fraction of failed sources above which the exit code is 3."""

    decode: DecodeOptions = inline(DecodeOptions)  # noqa: RUF009 (a field)
    encode: EncodeOptions = inline(EncodeOptions)  # noqa: RUF009 (a field)
    storage: StorageOptions = field(default_factory=StorageOptions)

    @property
    def are_cores_chosen(self) -> bool:
        """Whether the user limits the cores that the run may use."""
        return self.num_actors is not None or self.threads_per_actor > 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", models_or_builtin(self.model, self.style))
        for name in ("input", "out"):
            if not getattr(self, name):
                raise ConfigError(name, "", "is empty", "write a path or a URI such as s3://bucket/prefix")
        if self.run_id is not None and not _RUN_ID.fullmatch(self.run_id):
            cure = "use letters, digits, '.', '_' and '-', at most 128"
            raise ConfigError("run_id", self.run_id, "is not a portable folder name", cure)
        _ = StyleRule(by=self.style_by, seed=self.style_seed)  # its constructor checks them
        check_within("style_seed", self.style_seed, 0, 2**63 - 1)
        check_within("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        check_within("paint_timeout_s", self.paint_timeout_s, 0.001, MAX_PAINT_TIMEOUT_S)
        for name in ("num_actors", "threads_per_actor", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(name, value, "is below 1", "write a whole number of at least 1")
        if self.incremental and self.retry_failed:
            raise ConfigError("retry_failed", True, "cannot be combined with incremental", "run one after the other")
        if self.look == "folder" and self.paint.device != "cpu":
            cure = "leave --device out, or give --look library"
            raise ConfigError("look", self.look, "is painted on CPUs alone", cure)
        if self.gpu_decode and (self.paint.device != "cuda" or not self.are_stages_separate):
            cure = "add --device cuda and leave --stages as it is, or leave --gpu-decode out"
            raise ConfigError("gpu_decode", True, "needs a GPU and separate stages", cure)
        if self.runner == "local" and (self.paint.device != "cpu" or self.are_stages_separate):
            cure = "leave --runner out, or leave --device and --stages as they are"
            raise ConfigError("runner", self.runner, "paints on the CPU, in fused stages", cure)

    @property
    def are_stages_separate(self) -> bool:
        """Whether reading, painting and writing run in separate actors."""
        return self.stages == "separate" or (self.stages == "auto" and self.paint.device == "cuda")

    @property
    def may_run_locally(self) -> bool:
        """Whether the workers may run without Ray, as far as the number of sources allows it."""
        if self.runner != "auto":
            return self.runner == "local"
        return self.paint.device == "cpu" and not self.are_stages_separate and not os.environ.get("RAY_ADDRESS")
