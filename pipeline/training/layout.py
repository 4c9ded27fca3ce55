"""Where the files of a training run live under the output location."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.storage import join


@dataclass(frozen=True)
class TrainLayout:
    """Locations of one training run.

    Args:
        out: output location, resolved.
    """

    out: str

    @property
    def style_uri(self) -> str:
        """The final style model."""
        return join(self.out, "style.safetensors")

    @property
    def checkpoints_uri(self) -> str:
        """Folder of the checkpoints."""
        return join(self.out, "checkpoints")

    @property
    def lease_uri(self) -> str:
        """Prefix of the lease objects that say who may train."""
        return join(self.checkpoints_uri, "lease")

    @property
    def config_uri(self) -> str:
        """The run's config, as YAML that ``--config`` reads."""
        return join(self.out, "config.yaml")

    @property
    def identity_uri(self) -> str:
        """What decides the weights: settings, digests of the style image and of the content listing, as JSON."""
        return join(self.checkpoints_uri, "run.json")

    @property
    def content_uri(self) -> str:
        """The frozen content listing, as JSON."""
        return join(self.checkpoints_uri, "content.json")

    @property
    def metrics_uri(self) -> str:
        """One row per step."""
        return join(self.out, "metrics.parquet")

    @property
    def left_out_uri(self) -> str:
        """The content images that cannot be decoded, as JSON; absent as long as there are none."""
        return join(self.out, "left_out.json")

    @property
    def tensorboard_uri(self) -> str:
        """Folder of the event files, if they are asked for."""
        return join(self.out, "tensorboard")

    @property
    def report_uri(self) -> str:
        """The run's HTML page."""
        return join(self.out, "report", "index.html")

    def sample_uri(self, step: int) -> str:
        """One sample grid."""
        return join(self.out, "samples", f"step-{step:06d}.jpg")
