"""Forward passes over images that do not fit into memory, without visible seams."""

from stylemill.nn.tiled.stylize import stylize_tiled

__all__ = ["stylize_tiled"]
