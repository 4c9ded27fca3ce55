"""Train style-transfer networks and repaint image libraries with them. Importing it loads neither torch nor ray."""

__version__ = "0.1.0"
