"""The colour space that a file states: an ICC profile, code points, or gamma and chromaticities.

Where a file states it more than once, one statement wins:

- PNG: cICP, then iCCP, then sRGB, then gAMA with cHRM (W3C PNG specification, third edition, section 4.3).
- AVIF and HEIF: the ICC profile, then the code points (``nclx``), as MIAF requires and browsers do.

A statement that makes no sense is ignored with a note, and the next one is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from PIL import ImageFile

from stylemill.images.chromaticity import BT_709, PRIMARIES, Curve, Primaries, matrix_to_xyz, profile_of
from stylemill.images.formats.iso_boxes import CodePoints, PictureProperties
from stylemill.images.formats.png_chunks import colour_chunks
from stylemill.images.hdr import HLG, PQ, HdrSignal

_UNSPECIFIED: Final = 2
_GAMMA_UNIT: Final = 100_000
_USUAL_GAMMA: Final = 1 / 2.2
_GAMMAS: Final = (0.1, 10.0)
_SAME_GAMMA: Final = 0.05

# Browsers show the curves of BT.709, BT.601, SMPTE 240M, xvYCC, BT.1361 and BT.2020 as that of sRGB: they describe
# cameras, not screens. An AVIF file written as 1/1/1 is meant to look like the same picture written as 1/13/1.
_CURVES: Final = {
    **dict.fromkeys((1, _UNSPECIFIED, 6, 7, 11, 12, 13, 14, 15), Curve()),
    4: Curve(power=2.2),
    5: Curve(power=2.8),
    8: Curve(power=1.0),
}


@dataclass(frozen=True, kw_only=True)
class StatedColour:
    """What must be done to show a picture in sRGB."""

    profile: bytes | HdrSignal | None = None
    """The ICC profile, from the file or of the stated colour space; None where the samples are sRGB."""

    notes: tuple[str, ...] = ()
    """Sentences for the manifest row."""


def stated_colour(
    data: bytes, image: ImageFile.ImageFile, image_format: str, properties: PictureProperties | None
) -> StatedColour:
    """Return the colour space of a file.

    Args:
        data: the whole file.
        image: opened, for its ICC profile.
        image_format: its format.
        properties: of an AVIF or HEIF file, otherwise None.
    """
    profile = image.info.get("icc_profile") or None
    if image_format == "png":
        return _of_png(data, profile)
    if profile is None and properties and properties.code_points:
        stated = _of_code_points(properties.code_points, properties.peak_cd_m2)
        return stated or StatedColour(notes=(_unknown(properties.code_points, "nclx"),))
    return StatedColour(profile=profile)


def _unknown(points: CodePoints, where: str) -> str:
    return (
        f"its colour description ({where}) was ignored: primaries {points.primaries} with transfer {points.transfer} "
        "are not supported"
    )


def _of_code_points(points: CodePoints, peak_cd_m2: float | None) -> StatedColour | None:
    """Return the colour space for code points, None if they are unknown."""
    primaries = PRIMARIES.get(1 if points.primaries == _UNSPECIFIED else points.primaries)
    if primaries is None or (points.transfer not in _CURVES and points.transfer not in (PQ, HLG)):
        return None
    if points.transfer in (PQ, HLG):
        signal = HdrSignal(primaries=primaries, transfer=points.transfer)
        if peak_cd_m2:
            signal = HdrSignal(primaries=primaries, transfer=points.transfer, peak_cd_m2=peak_cd_m2)
        return StatedColour(profile=signal, notes=(f"high dynamic range ({signal.name}) was mapped to sRGB",))
    curve = _CURVES[points.transfer]
    if primaries == BT_709 and curve == Curve():
        return StatedColour()
    return StatedColour(profile=profile_of(primaries, curve))


def _of_png(data: bytes, profile: bytes | None) -> StatedColour:
    chunks = colour_chunks(data)
    notes: tuple[str, ...] = ()
    if b"cICP" in chunks:
        stated = _of_cicp(chunks[b"cICP"], chunks.get(b"cLLI", b""))
        if isinstance(stated, StatedColour):
            return stated
        notes += (stated,)
    if profile is not None:
        return StatedColour(profile=profile, notes=notes)
    if b"iCCP" in chunks:
        notes += ("its ICC profile was ignored because it is damaged",)
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        if b"cHRM" in chunks and b"sRGB" not in chunks:
            # As browsers do: primaries without a curve describe no colour.
            primaries = _chromaticities(chunks[b"cHRM"])
            if primaries is None or not primaries.is_close_to(BT_709):
                notes += ("its primaries (cHRM) were ignored because it has no gamma (gAMA)",)
        return StatedColour(notes=notes)
    of_gamma = _of_gamma(chunks[b"gAMA"], chunks.get(b"cHRM"))
    return StatedColour(profile=of_gamma.profile, notes=notes + of_gamma.notes)


def _of_cicp(content: bytes, light: bytes) -> StatedColour | str:
    """Return the colour space of a cICP chunk, or a note if it cannot be used."""
    damaged = "its colour description (cICP) was ignored because it is damaged"
    if len(content) != 4:
        return damaged
    primaries, transfer, matrix, full_range = content
    if matrix != 0 or full_range > 1:
        return damaged
    peak_cd_m2 = int.from_bytes(light[:4], "big") / 10_000 if len(light) == 8 else None
    points = CodePoints(primaries=primaries, transfer=transfer)
    stated = _of_code_points(points, peak_cd_m2)
    if stated is None:
        return _unknown(points, "cICP")
    if full_range == 0:
        stated = StatedColour(
            profile=stated.profile, notes=(*stated.notes, "its samples of narrow range were taken as full range")
        )
    return stated


def _of_gamma(gamma: bytes, chromaticities: bytes | None) -> StatedColour:
    """Return the colour space of a gAMA chunk and, if there is one, a cHRM chunk.

    By the usage of PNG a gamma of 1/2.2 stands for the curve of sRGB. With the primaries of sRGB, other gammas are
    therefore taken relative to it, as browsers do: the samples are raised to 1 / (2.2 gamma) and are then sRGB.
    """
    value = int.from_bytes(gamma, "big") / _GAMMA_UNIT if len(gamma) == 4 else 0.0
    if not _GAMMAS[0] <= value <= _GAMMAS[1]:
        return StatedColour(notes=(f"its gamma (gAMA) was ignored because {value:g} is not a valid value",))
    notes: tuple[str, ...] = ()
    primaries = BT_709
    if chromaticities is not None:
        stated = _chromaticities(chromaticities)
        if stated is None:
            notes = ("its primaries (cHRM) were ignored because they are not valid",)
        else:
            primaries = stated
    if not primaries.is_close_to(BT_709):
        return StatedColour(profile=profile_of(primaries, Curve(power=1 / value)), notes=notes)
    relative = _USUAL_GAMMA / value
    if abs(1 / relative - 1) <= _SAME_GAMMA:
        return StatedColour(notes=notes)
    return StatedColour(profile=profile_of(BT_709, Curve(sample_power=relative)), notes=notes)


def _chromaticities(content: bytes) -> Primaries | None:
    """Return the primaries of a cHRM chunk, None if they are not valid."""
    if len(content) != 32:
        return None
    values = [value / _GAMMA_UNIT for value in struct.unpack(">8I", content)]
    white, red, green, blue = zip(values[::2], values[1::2], strict=True)
    primaries = Primaries(red=red, green=green, blue=blue, white=white)
    try:
        matrix_to_xyz(primaries)
    except ValueError:
        return None
    return primaries
