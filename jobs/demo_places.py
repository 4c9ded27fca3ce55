"""Where the demo keeps its things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STYLE_NAME = "night-fields"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files and folders of one demo."""

    out: Path
    """The demo's own folder, absolute."""

    @property
    def style(self) -> Path:
        """The style image."""
        return self.out / "style" / f"{STYLE_NAME}.png"

    @property
    def content(self) -> Path:
        """Crops of photographs to learn on."""
        return self.out / "content"

    @property
    def library(self) -> Path:
        """What is repainted."""
        return self.out / "library"

    @property
    def training(self) -> Path:
        """Output location of the training."""
        return self.out / "training"

    @property
    def model(self) -> Path:
        """The trained style."""
        return self.training / "style.safetensors"

    @property
    def repainted(self) -> Path:
        """Output location of the bulk run."""
        return self.out / "repainted"

    @property
    def page(self) -> Path:
        """The page about it all."""
        return self.out / "report" / "index.html"

    @property
    def sheet(self) -> Path:
        """One picture about it all."""
        return self.out / "report" / "before-after.jpg"
