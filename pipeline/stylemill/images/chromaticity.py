"""Colour spaces given by their primaries and a curve: matrices between them, and ICC profiles that describe them.

LittleCMS converts the pixels with these profiles, so that a colour told by numbers becomes sRGB in the same way as a
colour told by a profile of the file.

Sources: ITU-T H.273 (primaries); IEC 61966-2-1 (sRGB); ICC.1:2022 (layout of a profile, Bradford adaptation, annex E).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

_D50_XYZ: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_PARAMETERS: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_TABLE_ENTRIES: Final = 1024
_SMALLEST_AREA: Final = 1e-3


@dataclass(frozen=True)
class Primaries:
    """CIE 1931 chromaticities, each as x and y."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]

    def is_close_to(self, other: Primaries, tolerance: float = 0.002) -> bool:
        """Return whether no coordinate differs by more than ``tolerance``."""
        return bool(np.abs(self.points - other.points).max() <= tolerance)

    @property
    def points(self) -> np.ndarray:
        """(4, 2) float64: red, green, blue, white."""
        return np.array([self.red, self.green, self.blue, self.white])


_D65: Final = (0.3127, 0.3290)
_ILLUMINANT_C: Final = (0.310, 0.316)
BT_709: Final = Primaries((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
"""Also those of sRGB."""

BT_2020: Final = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)

PRIMARIES: Final = {
    1: BT_709,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _ILLUMINANT_C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _ILLUMINANT_C),
    9: BT_2020,
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
"""ColourPrimaries of H.273, table 2, without XYZ (10), which no photograph uses."""


@dataclass(frozen=True)
class Curve:
    """The step from samples to light, both from 0 to 1."""

    power: float | None = None
    """Light is the sample to this power; None: the curve of sRGB."""

    sample_power: float = 1.0
    """Before the curve, the sample is raised to this power."""


def matrix_to_xyz(primaries: Primaries) -> np.ndarray:
    """Return the (3, 3) float64 matrix from linear RGB to CIE XYZ, white having the luminance 1.

    Raises:
        ValueError: the primaries span no area, or their white is not a mixture of them.
    """
    points = primaries.points
    if not (np.isfinite(points).all() and (points[3] > 0).all() and (np.abs(points) < 2).all()):
        raise ValueError("chromaticities out of range")
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points[:, 0] - points[:, 1]])
    edges = points[1:3] - points[0]
    if abs(float(np.linalg.det(edges))) < _SMALLEST_AREA:
        raise ValueError("the primaries span no area")
    weights = np.linalg.solve(xyz[:, :3], xyz[:, 3] / points[3, 1])
    if not (weights > 0).all():
        raise ValueError("white is not a mixture of the primaries")
    return np.asarray(xyz[:, :3] * weights)


def matrix_between(source: Primaries, target: Primaries) -> np.ndarray:
    """Return the (3, 3) float64 matrix from linear RGB to linear RGB of other primaries; white stays white."""
    return np.asarray(np.linalg.solve(_adapted_to_d50(target), _adapted_to_d50(source)))


def _adapted_to_d50(primaries: Primaries) -> np.ndarray:
    """Return the (3, 3) matrix from linear RGB to CIE XYZ, its white adapted to D50 by the method of Bradford."""
    to_xyz = matrix_to_xyz(primaries)
    cones = _BRADFORD @ to_xyz.sum(axis=1)
    adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ np.array(_D50_XYZ) / cones) @ _BRADFORD)
    return np.asarray(adaptation @ to_xyz)


@lru_cache(maxsize=64)
def profile_of(primaries: Primaries, curve: Curve) -> bytes:
    """Return an ICC profile of an RGB space; its white is adapted to D50 by the method of Bradford.

    Raises:
        ValueError: as ``matrix_to_xyz``.
    """
    columns = _adapted_to_d50(primaries)
    text = "stated by the file".encode("utf-16-be")
    description = struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(text), 28) + text
    shared_curve = _curve_tag(curve)
    tags = [
        (b"desc", description),
        (b"cprt", description),
        (b"wtpt", _xyz_tag(np.array(_D50_XYZ))),
        *((name, _xyz_tag(columns[:, index])) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))),
        *((name, shared_curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    return _assembled(tags)


def _curve_tag(curve: Curve) -> bytes:
    if curve.sample_power == 1.0:
        kind, parameters = (0, (curve.power,)) if curve.power is not None else (3, _SRGB_PARAMETERS)
        numbers = b"".join(_fixed(value) for value in parameters)
        return struct.pack(">4s4xHxx", b"para", kind) + numbers
    samples = np.linspace(0, 1, _TABLE_ENTRIES) ** curve.sample_power
    light = samples**curve.power if curve.power is not None else srgb_to_linear(samples)
    table = np.rint(light * 65535).astype(">u2").tobytes()
    return struct.pack(">4s4xI", b"curv", _TABLE_ENTRIES) + table


def srgb_to_linear(samples: np.ndarray) -> np.ndarray:
    """Return the light, 0 to 1, of sRGB samples from 0 to 1, of any shape."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Return the sRGB samples, 0 to 1, of light from 0 to 1, of any shape."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz_tag(xyz: np.ndarray) -> bytes:
    return struct.pack(">4s4x", b"XYZ ") + b"".join(_fixed(float(value)) for value in xyz)


def _assembled(tags: list[tuple[bytes, bytes]]) -> bytes:
    """Return header, directory and contents; equal contents are stored once."""
    directory, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    for name, content in tags:
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        directory += struct.pack(">4sII", name, places[content], len(content))
    header = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", header, 0, start + len(body), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    struct.pack_into(">6H4s", header, 24, 2000, 1, 1, 0, 0, 0, b"acsp")
    header[68:80] = b"".join(_fixed(value) for value in _D50_XYZ)
    return bytes(header) + directory + body
