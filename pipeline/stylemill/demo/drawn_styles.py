"""Style images of clearly different kinds, drawn by code: stained glass, woodcut, ink and five more.

The network of the built-in styles has learned all of them, and the start network the rings
(``cli/builtin_networks.py``). Each is a function of a random generator and a grid of coordinates in [0, 1]; it
returns colours in [0, 1]. ``draw`` renders them at twice the size and scales down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stylemill.demo.style_image import draw_style_image

FloatArray = NDArray[np.float64]
Colour = tuple[float, float, float]
_SUPERSAMPLING = 2


def draw(name: str, *, side_px: int = 512, seed: int = 7) -> Image.Image:
    """Draw one of ``STYLES``.

    Args:
        name: of the style.
        side_px: side of the square picture in pixels, at least 64.
        seed: changes the details, not the composition.

    Returns:
        A square RGB image; the same arguments give the same picture.

    Raises:
        KeyError: an unknown name.
        ValueError: side_px is below 64.
    """
    if name == STYLES[0]:
        return draw_style_image(side_px=side_px, seed=seed)
    paint = _PAINTERS[name]
    if side_px < 64:
        raise ValueError(f"side_px = {side_px}: a painting needs at least 64 px")
    side = side_px * _SUPERSAMPLING
    centre = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centre, centre)
    colours_HWC = paint(np.random.default_rng(seed), x, y)
    image = Image.fromarray(np.clip(np.round(colours_HWC * 255), 0, 255).astype(np.uint8), "RGB")
    return image.resize((side_px, side_px), Image.Resampling.LANCZOS)


def draw_to(path: Path, name: str, *, side_px: int = 512) -> None:
    """Draw one of ``STYLES`` into a PNG file, unless it exists.

    Raises:
        OSError: the file cannot be written.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draw(name, side_px=side_px).save(draft, format="PNG")
        draft.replace(path)


def _noise(rng: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float, octaves: int = 3) -> FloatArray:
    """Return smooth noise around 0, mostly within [-1, 1]: plane waves in random directions, halved per octave."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        for _ in range(7):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            wave = frequency * 2**octave * rng.uniform(0.7, 1.3)
            total += 2.0**-octave * np.sin(2 * np.pi * wave * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return total / 4.2


def _moved(rng: np.random.Generator, noise_HW: FloatArray) -> FloatArray:
    """Return noise turned and mirrored at random: another one, without the cost of drawing it."""
    turned = np.rot90(noise_HW, int(rng.integers(4)))
    return turned[:, ::-1] if rng.integers(2) else turned


def _cells(points_P2: FloatArray, x: FloatArray, y: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return for each pixel the index of the nearest point, and the distance to the border of its Voronoi cell."""
    # The extra for the demo contains scipy, a dependency of scikit-image.
    from scipy.spatial import cKDTree

    distances, nearest = cKDTree(points_P2).query(np.stack([x, y], axis=-1), k=2)
    between = np.linalg.norm(points_P2[nearest[..., 0]] - points_P2[nearest[..., 1]], axis=-1) + 1e-9
    return nearest[..., 0], (distances[..., 1] ** 2 - distances[..., 0] ** 2) / (2 * between)


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...], number: int, weights: tuple[float, ...]) -> FloatArray:
    """Return (number, 3) colours of the palette, drawn by weight and slightly varied."""
    chosen = rng.choice(len(palette), size=number, p=np.array(weights) / sum(weights))
    return np.array(palette)[chosen] * rng.uniform(0.82, 1.12, (number, 1)) + rng.normal(0, 0.02, (number, 3))


def _mix(under: FloatArray, over: FloatArray | Colour, cover: FloatArray) -> FloatArray:
    return under * (1 - cover[..., None]) + np.asarray(over) * cover[..., None]


def _edge(distance: FloatArray, softness: float = 0.0012) -> FloatArray:
    """Return 1 where distance > 0 and 0 elsewhere, with an antialiased border."""
    return np.clip(0.5 + distance / softness, 0, 1)


def _glass(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Stained glass: a rose window of jewel-coloured panes between dark leads, in a field of pale ones."""
    points, rings = [], []
    for ring, (radius, number) in enumerate(
        ((0.035, 5), (0.085, 9), (0.14, 14), (0.20, 18), (0.265, 24), (0.335, 30), (0.41, 34))
    ):
        turn = np.arange(number) / number * 2 * np.pi + ring * 0.35
        radii = radius + rng.normal(0, 0.006, number)
        points.append(np.stack([0.5 + radii * np.cos(turn), 0.5 + radii * np.sin(turn)], axis=-1))
        rings += [ring] * number
    for column in np.linspace(0.02, 0.98, 12):
        for row in np.linspace(0.02, 0.98, 12):
            if np.hypot(column - 0.5, row - 0.5) > 0.46:
                points.append(np.array([[column, row]]) + rng.normal(0, 0.012, (1, 2)))
                rings.append(7)
    cell, border = _cells(np.concatenate(points), x, y)
    jewels: tuple[Colour, ...] = (
        (0.72, 0.05, 0.12), (0.06, 0.16, 0.55), (0.95, 0.66, 0.10), (0.03, 0.42, 0.27), (0.45, 0.12, 0.50),
        (0.93, 0.89, 0.76), (0.14, 0.52, 0.74), (0.88, 0.36, 0.10),
    )  # fmt: skip
    weights = [
        (1, 0, 6, 0, 0, 3, 0, 2), (6, 0, 1, 0, 0, 0, 0, 3), (0, 6, 0, 0, 1, 0, 4, 0), (0, 1, 5, 0, 0, 4, 0, 2),
        (5, 0, 0, 3, 1, 0, 0, 0), (0, 6, 0, 1, 2, 0, 3, 0), (1, 0, 4, 4, 0, 3, 0, 2), (1, 2, 1, 1, 0, 7, 5, 0),
    ]  # fmt: skip
    panes = np.stack([_pick(rng, jewels, 1, weights[ring])[0] for ring in rings])
    light = 1 + 0.16 * _noise(rng, x, y, 5, 4) + 0.10 * _noise(rng, x * 0.4, y * 3, 9)
    rim = 0.72 + 0.28 * np.clip(border / 0.012, 0, 1)
    painted = panes[cell] * (light * rim)[..., None]
    return _mix(painted, (0.05, 0.045, 0.055), _edge(0.0042 + 0.001 * _noise(rng, x, y, 3) - border))


def _woodcut(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """A woodcut: black lines that swell with the tone on warm paper, and a red sun."""
    sun = np.hypot(x - 0.68, y - 0.27)
    ridge = 0.52 + 0.10 * np.sin(5.2 * x + 0.6) + 0.035 * np.sin(17 * x) + 0.010 * _noise(rng, x, 0 * y, 9)
    near = 0.74 + 0.07 * np.sin(4.1 * x + 3.6) + 0.02 * np.sin(15 * x + 1)
    bend = _noise(rng, x, y, 1.2, 2)
    # Each region has lines of its own: rings around the sun, strokes down the slopes, waves in front.
    sky = sun * 46 + 1.2 * bend
    slope = (x + 0.55 * (y - ridge) * np.sin(9 * x) + 0.02 * bend) * 74
    water = (y - near + 0.022 * np.sin(21 * x + 9 * y) + 0.015 * bend) * 62
    phase = np.where(y > near, water, np.where(y > ridge, slope, sky))
    tone_sky = 0.16 + 0.30 * np.clip(sun / 0.75, 0, 1) + 0.10 * bend
    tone_slope = 0.78 - 0.9 * np.clip((y - ridge) / 0.25, 0, 1) * (0.5 + 0.5 * np.sin(11 * x + 1.5)) + 0.08 * bend
    tone_water = 0.42 + 0.30 * np.sin(7.3 * (y - near) * 8 + 5 * x) + 0.12 * bend
    tone = np.where(y > near, tone_water, np.where(y > ridge, tone_slope, tone_sky))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * phase)
    ink = np.clip((np.clip(tone, 0.05, 0.93) - wave) * 7 + 0.5, 0, 1)
    ink = np.where((y < ridge) & (sun < 0.16), 0, ink)
    contour = np.minimum(np.abs(y - ridge), np.abs(y - near)) - 0.0045
    ink = np.maximum(ink, _edge(-contour))
    paper = np.array((0.93, 0.88, 0.76)) * (1 + 0.02 * _noise(rng, x, y, 40, 2))[..., None]
    disc = _edge(0.15 - sun) * (y < ridge)
    red = np.array((0.80, 0.17, 0.11)) * (1 + 0.05 * _noise(rng, x * 0.3, y * 4, 12, 2))[..., None]
    return _mix(_mix(paper, red, disc), (0.085, 0.075, 0.075), ink * (1 - 0.06 * _noise(rng, x, y, 30, 2) ** 2))


def _dots(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Pointillism: dabs of pure colour, cold in the sky and warm in the fields."""
    grid = (np.stack(np.meshgrid(np.arange(92), np.arange(92)), axis=-1).reshape(-1, 2) + 0.5) / 92
    points = grid + rng.normal(0, 0.0038, grid.shape)
    cell, border = _cells(points, x, y)
    at_x, at_y = points.T
    tree = at_y + 0.11 * _noise(rng, at_x, at_y, 2.2)
    sky = _pick(
        rng, ((0.55, 0.78, 0.84), (0.80, 0.88, 0.82), (0.40, 0.62, 0.80), (0.96, 0.90, 0.66)), len(points), (5, 4, 3, 2)
    )
    leaf = _pick(
        rng, ((0.13, 0.38, 0.20), (0.30, 0.52, 0.20), (0.08, 0.22, 0.28), (0.62, 0.66, 0.22)), len(points), (4, 4, 3, 2)
    )
    soil = _pick(
        rng, ((0.85, 0.45, 0.16), (0.93, 0.68, 0.28), (0.52, 0.30, 0.52), (0.74, 0.24, 0.18)), len(points), (4, 4, 3, 2)
    )
    dabs = np.where((tree > 0.66)[:, None], soil, np.where((tree > 0.42)[:, None], leaf, sky))
    ground = np.array((0.78, 0.70, 0.55))
    return _mix(np.broadcast_to(ground, (*x.shape, 3)), dabs[cell], _edge(border - 0.0007))


def _facets(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Cubism: shaded facets in greys and earth colours, with a few in green, blue and brick."""
    painted = np.broadcast_to(np.array((0.45, 0.44, 0.43)), (*x.shape, 3))
    palette: tuple[Colour, ...] = (
        (0.82, 0.80, 0.76), (0.30, 0.30, 0.32), (0.56, 0.54, 0.52), (0.10, 0.10, 0.12), (0.64, 0.34, 0.22),
        (0.14, 0.40, 0.28), (0.20, 0.28, 0.52), (0.86, 0.68, 0.52),
    )  # fmt: skip
    colours = _pick(rng, palette, 130, (4, 4, 4, 3, 2, 1.5, 1.5, 1.5))
    for number, colour in enumerate(colours):
        size = 0.34 * 0.985**number
        centre, turn = rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi)
        along = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
        across = -(x - centre[0]) * np.sin(turn) + (y - centre[1]) * np.cos(turn)
        bow = across + rng.uniform(-2.5, 2.5) * along**2
        inside = np.minimum(size * 0.8 - np.abs(along), size * rng.uniform(0.22, 0.5) - np.abs(bow) - 0.25 * along)
        shade = 0.62 + 0.5 * np.clip(0.5 + bow / size * rng.choice([-1, 1]), 0, 1)
        painted = _mix(painted, colour * shade[..., None], _edge(inside, 0.002))
    return painted * (1 + 0.03 * _noise(rng, x, y, 40, 2))[..., None]


def _rings(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Folk art: discs of concentric rings in red, yellow and white on blue and gold, with dark curls."""
    glow = np.clip(0.5 + 0.5 * _noise(rng, x, y, 1.3, 3), 0, 1)
    painted = _mix(np.broadcast_to(np.array((0.42, 0.65, 0.86)), (*x.shape, 3)), (0.90, 0.70, 0.26), glow)
    palette: tuple[Colour, ...] = (
        (0.80, 0.06, 0.12), (0.98, 0.86, 0.42), (0.97, 0.95, 0.90), (0.30, 0.04, 0.09), (0.93, 0.45, 0.52),
        (0.35, 0.55, 0.82),
    )  # fmt: skip
    ragged = 0.004 * _noise(rng, x, y, 8, 2)
    for number in range(40):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.12) * (1.2 - number / 60)
        reach = np.hypot(x - centre[0], y - centre[1]) + _moved(rng, ragged)
        for share in (1.0, 0.86, 0.62, 0.5, 0.3, 0.16):
            colour = _pick(rng, palette, 1, (4, 4, 4, 3, 2, 1))[0]
            grain = 1 + 0.06 * np.sin(reach * 900 + rng.uniform(0, 6))
            painted = _mix(painted, colour * grain[..., None], _edge(radius * share - reach, 0.002))
    side = x.shape[0]
    canvas = Image.fromarray(np.clip(painted * 255, 0, 255).astype(np.uint8), "RGB")
    pen = ImageDraw.Draw(canvas)
    for _ in range(26):
        turn = np.linspace(0, rng.uniform(2.5, 4.2) * np.pi, 120)
        reach = 0.09 * (1 - turn / turn[-1]) ** 0.8 * rng.uniform(0.6, 1.5)
        angle = turn * rng.choice([-1, 1]) + rng.uniform(0, 6)
        at = rng.uniform(0, 1, 2)[:, None] + reach * np.stack([np.cos(angle), np.sin(angle)])
        width = np.linspace(0.010, 0.003, len(turn)) * side
        for (column, row), radius in zip((at * side).T, width, strict=True):
            pen.ellipse((column - radius, row - radius, column + radius, row + radius), fill=(58, 18, 24))
    return np.asarray(canvas) / 255.0


def _waves(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """A colour woodblock print: flat areas of cream and three blues with dark outlines and spray."""
    warp = 0.10 * _noise(rng, x, y, 1.4, 2)
    field = y * 2.1 + 0.9 * np.sin(3.3 * x + 1.2) * (0.4 + y) + warp * 3 + 0.05 * _noise(rng, x, y, 11, 2)
    level = field * 3.2
    colours = np.array(
        ((0.90, 0.86, 0.74), (0.86, 0.83, 0.73), (0.52, 0.70, 0.74), (0.24, 0.44, 0.62), (0.09, 0.20, 0.42))
    )
    order = np.array([0, 1, 0, 2, 0, 3, 4, 2, 0, 4, 3, 0, 2, 4, 3, 4])
    flat = colours[order[np.clip(np.floor(level), 0, 15).astype(int)]]
    stripes = np.clip((0.5 + 0.5 * np.sin(field * 95)) * 6 - 4.2, 0, 1) * (np.sin(level * 0.9 + 2 * x) > 0.1)
    outline = 0.055 - np.abs(level - np.round(level))
    painted = _mix(_mix(flat, (0.09, 0.20, 0.42), stripes * 0.8), (0.08, 0.14, 0.28), _edge(outline, 0.03))
    spray = rng.uniform(0, 1, (420, 2)) * (1, 0.8)
    index, _ = _cells(spray, x, y)
    distance = np.hypot(x - spray[index, 0], y - spray[index, 1])
    size = rng.uniform(0.0015, 0.0055, len(spray))
    return (
        _mix(painted, (0.95, 0.93, 0.86), _edge(size[index] - distance))
        * (1 + 0.02 * _noise(rng, x, y, 60, 1))[..., None]
    )


def _wash(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Watercolour: pale washes with darker rims on white paper, and a few pen lines."""
    painted = np.broadcast_to(np.array((0.97, 0.96, 0.93)), (*x.shape, 3))
    washes: tuple[Colour, ...] = (
        (0.62, 0.80, 0.86), (0.95, 0.74, 0.70), (0.78, 0.84, 0.60), (0.96, 0.86, 0.58), (0.70, 0.66, 0.82),
        (0.30, 0.48, 0.62),
    )  # fmt: skip
    outline, depth = _noise(rng, x, y, 3, 4), _noise(rng, x, y, 5, 3)
    for colour in _pick(rng, washes, 26, (4, 3, 3, 3, 3, 1.5)):
        centre = rng.uniform(0, 1, 2)
        reach = np.hypot(x - centre[0], (y - centre[1]) * rng.uniform(1, 2.2))
        inside = rng.uniform(0.08, 0.24) * (1 + 0.55 * _moved(rng, outline)) - reach
        strength = 0.55 * _edge(inside, 0.006) + 0.35 * np.exp(-((inside / 0.006) ** 2))
        strength *= 0.9 + 0.25 * _moved(rng, depth)
        painted = painted * (1 - np.clip(strength, 0, 1)[..., None] * (1 - colour))
    lines = np.abs(np.sin(6 * (y + 0.10 * _noise(rng, x, y, 2.5, 3))) + 0.4 * _noise(rng, x, y, 1.5, 2))
    painted = _mix(painted, (0.22, 0.22, 0.27), 0.8 * _edge(0.012 - lines, 0.01))
    return painted * (1 + 0.025 * _noise(rng, x, y, 70, 2))[..., None]


def _ink(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Ink: black brush strokes that run dry over grey washes on rice paper, with splashes."""
    depth, outline = _noise(rng, x, y, 4, 3), _noise(rng, x, y, 3, 4)
    light = np.ones_like(x)
    for _ in range(9):  # washes with a darker rim
        centre, grey = rng.uniform(0, 1, 2), rng.uniform(0.12, 0.38)
        reach = np.hypot((x - centre[0]) * rng.uniform(0.5, 1), (y - centre[1]) * rng.uniform(1, 2))
        inside = rng.uniform(0.08, 0.2) * (1 + 0.6 * _moved(rng, outline)) - reach
        strength = _edge(inside, 0.012) * (1 + 0.5 * _moved(rng, depth)) + 0.5 * np.exp(-((inside / 0.008) ** 2))
        light *= 1 - np.clip(grey * strength, 0, 1)
    for _ in range(46):
        angle, length = rng.normal(0.35, 0.7), rng.uniform(0.15, 0.6)
        width, bend = rng.choice([0.004, 0.009, 0.02, 0.034]) * rng.uniform(0.7, 1.3), rng.uniform(-0.3, 0.3)
        start = rng.uniform(-0.1, 1, 2)
        along = ((x - start[0]) * np.cos(angle) + (y - start[1]) * np.sin(angle)) / length
        across = (y - start[1]) * np.cos(angle) - (x - start[0]) * np.sin(angle)
        across = across - bend * length * np.sin(np.pi * np.clip(along, 0, 1)) + 0.004 * depth
        is_on = (along > 0) & (along < 1)
        body = width * np.clip(6 * along, 0, 1) ** 0.5 * np.clip(1 - along, 0, 1) ** 0.4
        hairs = rng.uniform(0, 1, 96)[np.clip((across / width + 1) * 48, 0, 95).astype(np.intp)]
        dryness = np.clip(1.6 * along - 0.7, 0, 0.75)  # hairs of the brush run dry one after the other
        cover = _edge(body - np.abs(across)) * (hairs > dryness) * is_on
        light *= 1 - cover * rng.uniform(0.75, 0.97)
    for _ in range(130):
        centre, radius = rng.uniform(0, 1, 2), 0.0012 * rng.pareto(1.6) + 0.0012
        light *= 1 - 0.9 * _edge(min(radius, 0.012) - np.hypot(x - centre[0], y - centre[1]))
    paper = np.array((0.96, 0.945, 0.90)) * (1 + 0.02 * _noise(rng, x, y, 60, 2))[..., None]
    return _mix(paper, (0.075, 0.075, 0.09), 1 - light)


_PAINTERS: dict[str, Callable[[np.random.Generator, FloatArray, FloatArray], FloatArray]] = {
    "stained-glass": _glass,
    "woodcut": _woodcut,
    "dots": _dots,
    "facets": _facets,
    "rings": _rings,
    "waves": _waves,
    "wash": _wash,
    "ink": _ink,
}
STYLES = ("night-fields", *_PAINTERS)
"""Names of all drawn styles, which the built-in network has learned."""
