"""Images larger than memory, without a seam."""

from stylemill.nn.tiled.stylize import stylize_by_thumbnail, stylize_tiled

__all__ = ["stylize_by_thumbnail", "stylize_tiled"]
