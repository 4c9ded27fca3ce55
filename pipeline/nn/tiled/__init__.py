"""Images larger than memory, without a seam."""

from pipeline.nn.tiled.stylize import stylize_tiled

__all__ = ["stylize_tiled"]
