"""The inference form of a trained network: the same pixels, several times faster."""

from pipeline.nn.fast.net import FastNet, Flight
from pipeline.nn.precision import resolve_precision

__all__ = ["FastNet", "Flight", "resolve_precision"]
