"""The inference form of a trained network: the same pixels, several times faster."""

from pipeline.nn.fast.net import FastNet
from pipeline.nn.precision import resolve_precision

__all__ = ["FastNet", "resolve_precision"]
