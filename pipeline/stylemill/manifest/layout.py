"""Locations of the files of a run below the output location."""

from __future__ import annotations

from dataclasses import dataclass

from stylemill.storage import join


@dataclass(frozen=True, kw_only=True)
class RunLayout:
    """Locations of one run."""

    out: str
    """Output location, resolved."""
    run_id: str
    """Identity of the run."""

    @property
    def run_uri(self) -> str:
        """Working files of the run."""
        return join(self.out, "runs", self.run_id)

    @property
    def plan_uri(self) -> str:
        """Prefix of the plan's shards."""
        return join(self.run_uri, "plan")

    @property
    def plan_complete_uri(self) -> str:
        """JSON whose presence ends planning."""
        return join(self.plan_uri, "_COMPLETE")

    @property
    def config_uri(self) -> str:
        """The run's config, as YAML that ``--config`` reads."""
        return join(self.run_uri, "config.yaml")

    @property
    def identity_uri(self) -> str:
        """Identity of the run: fingerprint, styles and the settings behind them, as JSON."""
        return join(self.run_uri, "run.json")

    def model_uri(self, style: str) -> str:
        """The run's copy of a style model, so that workers do not depend on the original."""
        return join(self.run_uri, "models", f"{style}.safetensors")

    def environment_uri(self, part: str) -> str:
        """Part of what the first worker found on its machine, as JSON (``stylizing/environment.py``)."""
        return join(self.run_uri, "environment", f"{part}.json")

    @property
    def report_uri(self) -> str:
        """HTML report of the run."""
        return join(self.run_uri, "report", "index.html")

    @property
    def pending_uri(self) -> str:
        """Prefix of rows that are not committed yet."""
        return join(self.run_uri, "pending")

    @property
    def deleted_uri(self) -> str:
        """Sources that earlier runs painted and that no longer exist, as JSON (``--incremental``)."""
        return join(self.run_uri, "deleted.json")

    @property
    def lease_uri(self) -> str:
        """Prefix of the lease objects, which decide which process may write the run."""
        return join(self.run_uri, "lease")

    def part_info_uri(self, shard: int) -> str:
        """Description of one part for ``_SUCCESS``, stored so that a resumed run need not read the part."""
        return join(self.run_uri, "parts", f"part-{shard:06d}.json")

    @property
    def manifest_uri(self) -> str:
        """Prefix of the committed manifest."""
        return join(self.out, "manifests", self.run_id)

    @property
    def success_uri(self) -> str:
        """JSON whose presence commits the manifest."""
        return join(self.manifest_uri, "_SUCCESS")

    def plan_shard_uri(self, shard: int) -> str:
        """One shard of the plan."""
        return join(self.plan_uri, f"shard-{shard:06d}.parquet")

    def pending_shard_uri(self, shard: int) -> str:
        """Prefix of one shard's pending rows."""
        return join(self.pending_uri, f"shard-{shard:06d}")

    def part_name(self, shard: int) -> str:
        """Name of the part that holds one shard's rows."""
        return f"part-{shard:06d}.parquet"

    def part_uri(self, shard: int) -> str:
        """One part of the manifest."""
        return join(self.manifest_uri, self.part_name(shard))

    def images_uri(self, tree: str) -> str:
        """Prefix of the images in one tree: the style's name, or one that begins with it (``manifest/output.py``)."""
        return join(self.out, "images", tree)
