"""stylemill's library: train style networks, repaint image libraries. Importing it loads neither torch nor ray."""

__version__ = "0.1.0"
