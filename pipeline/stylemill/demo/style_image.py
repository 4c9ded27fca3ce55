"""The demo's style image: a painting that is drawn by code, without any image file.

The picture is a night landscape of brush strokes. Each stroke is a bundle of bristles that follows a swirling flow; its
colour is a function of its position. ``draw_style_image`` draws the underpainting, three passes of strokes from coarse
to fine, the stars, and a varnish that shades the relief of the paint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FloatArray = NDArray[np.float64]

# Strokes are drawn at twice the size and scaled down, which is cheap antialiasing of good quality.
_SUPERSAMPLING = 2
_HORIZON = 0.70
_STEPS_PER_STROKE = 14

_DEEP = (0.030, 0.055, 0.190)
_NAVY = (0.055, 0.130, 0.400)
_COBALT = (0.090, 0.290, 0.660)
_AZURE = (0.270, 0.560, 0.840)
_TEAL = (0.030, 0.230, 0.310)
_JADE = (0.240, 0.610, 0.520)
_PALE = (0.780, 0.880, 0.900)
_WHITE = (0.985, 0.965, 0.880)
_LEMON = (0.980, 0.860, 0.380)
_OCHRE = (0.890, 0.610, 0.130)
_SIENNA = (0.720, 0.330, 0.090)
_RED = (0.790, 0.130, 0.090)
_WINE = (0.290, 0.040, 0.100)

# Colour ramps as (position, colour). The sky, from the trough of a current to its crest:
_SKY_RAMP = (
    (0.00, _DEEP),
    (0.26, _NAVY),
    (0.50, _COBALT),
    (0.72, _AZURE),
    (0.90, _PALE),
    (1.00, _WHITE),
)
# A star, from its rim to its centre:
_STAR_RAMP = ((0.00, _NAVY), (0.22, _AZURE), (0.42, _OCHRE), (0.66, _LEMON), (0.86, _WHITE), (1.00, _WHITE))
# The far hills, from dark to light:
_HILL_RAMP = ((0.00, _DEEP), (0.35, _TEAL), (0.62, _COBALT), (0.80, _JADE), (1.00, _PALE))
# The fields, from a furrow to its ridge:
_LAND_RAMP = (
    (0.00, _WINE),
    (0.24, _RED),
    (0.46, _SIENNA),
    (0.66, _OCHRE),
    (0.86, _LEMON),
    (1.00, _WHITE),
)


@dataclass(frozen=True, kw_only=True)
class _Vortex:
    """One vortex of the sky: centre and radius as fractions of the side; the sign of ``spin`` is its direction."""

    x: float
    y: float
    radius: float
    spin: float
    star: bool = True


# Placed by eye: a large moon, a spiral in the middle, and smaller stars around them.
_VORTICES = (
    _Vortex(x=0.775, y=0.205, radius=0.165, spin=1.0),
    _Vortex(x=0.385, y=0.345, radius=0.190, spin=-1.0, star=False),
    _Vortex(x=0.130, y=0.150, radius=0.095, spin=1.0),
    _Vortex(x=0.490, y=0.095, radius=0.070, spin=-1.0),
    _Vortex(x=0.905, y=0.520, radius=0.085, spin=-1.0),
    _Vortex(x=0.120, y=0.530, radius=0.075, spin=1.0),
    _Vortex(x=0.640, y=0.520, radius=0.060, spin=1.0),
)


@dataclass(frozen=True, kw_only=True)
class _Brush:
    """Settings of one pass of strokes; lengths and widths are fractions of the side."""

    num_strokes: int
    length: float
    width: float
    bristles: int
    jitter: float
    lift: float
    accents: float


_PASSES = (
    _Brush(num_strokes=1300, length=0.130, width=0.0230, bristles=9, jitter=0.060, lift=-0.10, accents=0.03),
    _Brush(num_strokes=2600, length=0.100, width=0.0125, bristles=6, jitter=0.090, lift=0.00, accents=0.11),
    _Brush(num_strokes=2300, length=0.075, width=0.0075, bristles=4, jitter=0.130, lift=0.07, accents=0.13),
)


def draw_style_image(*, side_px: int = 512, seed: int = 7) -> Image.Image:
    """Draw the demo's painting.

    Args:
        side_px: side of the square picture in pixels, at least 64.
        seed: changes the position of every stroke, not the composition.

    Returns:
        A square RGB image; the same arguments give the same picture.

    Raises:
        ValueError: side_px is below 64.
    """
    if side_px < 64:
        raise ValueError(f"side_px = {side_px}: a painting needs at least 64 px")
    rng = np.random.default_rng(seed)
    side = side_px * _SUPERSAMPLING
    noise = _SmoothNoise(rng)
    canvas = Image.fromarray(_to_uint8(_underpainting(noise, side)), "RGB")
    draw = ImageDraw.Draw(canvas)
    for brush in _PASSES:
        _paint(draw, side=side, brush=brush, noise=noise, rng=rng)
    _paint_stars(draw, side=side, rng=rng)
    return _varnish(canvas.resize((side_px, side_px), Image.Resampling.LANCZOS))


class _SmoothNoise:
    """A few random plane waves per octave: smooth, cheap and defined everywhere."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle = rng.uniform(0.0, 2.0 * np.pi, size=18)
        frequency = np.repeat([2.0, 4.5, 9.0], 6) * rng.uniform(0.8, 1.25, size=18)
        self._kx = frequency * np.cos(angle)
        self._ky = frequency * np.sin(angle)
        self._phase = rng.uniform(0.0, 2.0 * np.pi, size=18)
        self._weight = np.repeat([1.0, 0.5, 0.22], 6) / 3.0

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return values around 0, mostly within [-1, 1], at points given as fractions of the side."""
        total = np.zeros_like(x)
        for kx, ky, phase, weight in zip(self._kx, self._ky, self._phase, self._weight, strict=True):
            total += weight * np.sin(2.0 * np.pi * (kx * x + ky * y) * 0.5 + phase)
        return total


def _hill(x: FloatArray) -> FloatArray:
    """Return the y of the crest of the far hills at each x (0 is the top of the picture)."""
    return _HORIZON - 0.040 * np.sin(2.3 * np.pi * x + 0.5) - 0.016 * np.sin(6.7 * np.pi * x + 2.0)


def _field(x: FloatArray) -> FloatArray:
    """Return the y at which the fields begin, below the far hills."""
    return _HORIZON + 0.105 + 0.050 * np.sin(1.7 * np.pi * x - 0.4) + 0.010 * np.sin(7.9 * np.pi * x)


def _stream(x: FloatArray, y: FloatArray, noise: _SmoothNoise) -> FloatArray:
    """Return the stream function; strokes follow its contour lines."""
    sky = 0.50 * y + 0.075 * noise(x, y)
    for vortex in _VORTICES:
        reach = np.hypot((x - vortex.x) * 0.95, y - vortex.y) / vortex.radius
        whirl = 0.50 * vortex.y + vortex.spin * 0.55 * vortex.radius * (1.25 - reach)
        hold = 1.0 / (1.0 + np.exp((reach - 1.12) / 0.14))
        sky = sky * (1.0 - hold) + whirl * hold
    hills = 0.9 * (y - _hill(x)) + 0.020 * noise(x * 1.3 + 5.0, y * 2.0)
    depth = np.maximum(y - _field(x), 0.0)
    fan = 0.55 * (y - 0.45 * _field(x)) + 0.34 * np.sin(2.2 * (x - 0.30)) * depth * 2.2
    land = fan + 0.055 * noise(x * 0.9 + 3.0, y * 1.2)
    on_hills, on_land = _step(y - _hill(x), 0.008), _step(y - _field(x), 0.008)
    sky = sky * (1.0 - on_hills) + hills * on_hills
    return sky * (1.0 - on_land) + land * on_land


def _step(depth: FloatArray, softness: float) -> FloatArray:
    return 1.0 / (1.0 + np.exp(-np.clip(depth / softness, -60.0, 60.0)))


def _velocity(x: FloatArray, y: FloatArray, noise: _SmoothNoise) -> tuple[FloatArray, FloatArray]:
    """Return the unit direction of the flow, the curl of the stream function, which is free of divergence."""
    step = 1e-3
    along_x = (_stream(x, y + step, noise) - _stream(x, y - step, noise)) / (2.0 * step)
    along_y = -(_stream(x + step, y, noise) - _stream(x - step, y, noise)) / (2.0 * step)
    speed = np.hypot(along_x, along_y) + 1e-9
    along_x, along_y = along_x / speed, along_y / speed
    for vortex in _VORTICES:
        # A small drift towards the centre turns closed rings into spirals.
        to_x, to_y = vortex.x - x, vortex.y - y
        reach = np.hypot(to_x, to_y) + 1e-9
        pull = 0.30 * np.clip(1.25 - reach / vortex.radius, 0.0, 1.0) ** 0.5
        along_x = along_x + pull * to_x / reach
        along_y = along_y + pull * to_y / reach
    speed = np.hypot(along_x, along_y) + 1e-9
    return along_x / speed, along_y / speed


def _ramp(position: FloatArray, stops: tuple[tuple[float, tuple[float, float, float]], ...]) -> FloatArray:
    at = np.array([stop for stop, _ in stops])
    colours = np.array([colour for _, colour in stops])
    clipped = np.clip(position, 0.0, 1.0)
    return np.stack([np.interp(clipped, at, colours[:, channel]) for channel in range(3)], axis=-1)


def _colour(x: FloatArray, y: FloatArray, noise: _SmoothNoise, lift: FloatArray) -> FloatArray:
    """Return the colour (..., 3) in [0, 1] at each point; ``lift`` shifts the position on the ramps, dark to light."""
    psi = _stream(x, y, noise)
    current = 0.5 + 0.5 * np.sin(2.0 * np.pi * psi / 0.125)
    sky_tone = 0.06 + 0.62 * current * (0.55 + 0.45 * np.clip(y / _HORIZON, 0.0, 1.0)) + 0.13 * noise(x, y)
    paint = _ramp(sky_tone + lift, _SKY_RAMP)
    for vortex in _VORTICES:
        reach = np.hypot(x - vortex.x, y - vortex.y) / vortex.radius
        # A hard edge between star and sky: a mix of ochre and blue would be grey.
        cover = np.clip((0.94 - reach + 0.9 * lift) / 0.04, 0.0, 1.0)[..., None]
        if vortex.star:
            rings = 0.15 * np.cos(2.0 * np.pi * reach * 2.2)
            upper = _ramp(1.06 - 0.86 * reach + rings + 0.7 * lift, _STAR_RAMP)
        else:
            turn = np.arctan2(y - vortex.y, x - vortex.x)
            arms = np.cos(2.0 * turn - 7.5 * vortex.spin * reach)
            upper = _ramp(0.46 + 0.36 * arms + 0.30 * (1.0 - reach) + lift, _SKY_RAMP)
        paint = paint * (1.0 - cover) + upper * cover
    furrows = 0.5 + 0.5 * np.sin(2.0 * np.pi * psi / 0.062)
    hill_tone = 0.12 + 0.52 * (0.5 + 0.5 * np.sin(2.0 * np.pi * psi / 0.050)) + 0.10 * noise(x * 2.0, y)
    land_tone = 0.13 + 0.50 * furrows + 0.22 * noise(x + 1.7, y * 2.0)
    paint = _over(paint, _ramp(hill_tone + lift, _HILL_RAMP), y - _hill(x))
    return _over(paint, _ramp(land_tone + lift, _LAND_RAMP), y - _field(x))


def _accent(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return contrasting colours (strokes, 3): warm ones in the sky and on the hills, cold ones in the fields.

    With them every region contains the whole palette; the network learns from strokes and not from the composition.
    """
    warm = np.array([_OCHRE, _SIENNA, _RED, _LEMON, _OCHRE])[rng.integers(0, 5, size=len(x))]
    cold = np.array([_NAVY, _COBALT, _TEAL, _AZURE])[rng.integers(0, 4, size=len(x))]
    return np.where((y > _field(x))[:, None], cold, warm) * rng.uniform(0.8, 1.05, size=(len(x), 1))


def _over(paint: FloatArray, upper: FloatArray, depth: FloatArray) -> FloatArray:
    """Return ``upper`` over ``paint`` where depth > 0, with a dark contour along the edge."""
    ground = np.clip(depth / 0.006, 0.0, 1.0)[..., None]
    contour = 0.9 * np.exp(-0.5 * (depth / 0.006) ** 2)[..., None]
    return (paint * (1.0 - ground) + upper * ground) * (1.0 - contour) + np.array(_DEEP) * contour


def _to_uint8(values: FloatArray) -> NDArray[np.uint8]:
    return np.clip(np.round(values * 255.0), 0.0, 255.0).astype(np.uint8)


def _underpainting(noise: _SmoothNoise, side: int) -> FloatArray:
    """Return the coarse underpainting (side, side, 3), darker than the strokes on top of it."""
    cells = 128
    centre = (np.arange(cells) + 0.5) / cells
    x, y = np.meshgrid(centre, centre)
    coat = 0.62 * _colour(x, y, noise, np.full_like(x, -0.12))
    return np.repeat(np.repeat(coat, -(-side // cells), axis=0), -(-side // cells), axis=1)[:side, :side]


def _trace(x: FloatArray, y: FloatArray, length: FloatArray, noise: _SmoothNoise) -> tuple[FloatArray, FloatArray]:
    """Follow the flow from each point; return x and y as (strokes, steps) arrays of fractions of the side."""
    xs, ys = [x], [y]
    step = length / (_STEPS_PER_STROKE - 1)
    for _ in range(_STEPS_PER_STROKE - 1):
        u, v = _velocity(xs[-1], ys[-1], noise)
        mid_u, mid_v = _velocity(xs[-1] + 0.5 * step * u, ys[-1] + 0.5 * step * v, noise)
        xs.append(xs[-1] + step * mid_u)
        ys.append(ys[-1] + step * mid_v)
    return np.stack(xs, axis=1), np.stack(ys, axis=1)


def _paint(
    draw: ImageDraw.ImageDraw, *, side: int, brush: _Brush, noise: _SmoothNoise, rng: np.random.Generator
) -> None:
    """Draw one pass of strokes; each is a bundle of bristles, wide in the middle and thin at the ends."""
    x = rng.uniform(-0.04, 1.02, size=brush.num_strokes)
    y = rng.uniform(-0.02, 1.02, size=brush.num_strokes)
    length = brush.length * rng.uniform(0.45, 1.35, size=brush.num_strokes)
    width = brush.width * rng.lognormal(0.0, 0.30, size=brush.num_strokes)
    xs, ys = _trace(x, y, length, noise)
    middle = _STEPS_PER_STROKE // 2
    lift = brush.lift + rng.normal(0.0, brush.jitter, size=brush.num_strokes)
    paint = _colour(xs[:, middle], ys[:, middle], noise, lift)
    accents = rng.uniform(size=brush.num_strokes) < brush.accents
    paint[accents] = _accent(xs[accents, middle], ys[accents, middle], rng)
    along_x, along_y = np.gradient(xs, axis=1), np.gradient(ys, axis=1)
    norm = np.hypot(along_x, along_y) + 1e-9
    taper = np.sin(np.linspace(0.10 * np.pi, 0.94 * np.pi, _STEPS_PER_STROKE)) ** 0.6
    offsets = np.linspace(-0.5, 0.5, brush.bristles)
    # One side of a stroke is lighter and the other darker, like thick paint in light from the left.
    relief = 0.92 + 0.30 * offsets
    grain = rng.normal(0.0, 0.055, size=(brush.num_strokes, brush.bristles))
    reach = (offsets[None, :, None] * width[:, None, None]) * taper
    bristle_x = (xs[:, None] - (along_y / norm)[:, None] * reach) * side
    bristle_y = (ys[:, None] + (along_x / norm)[:, None] * reach) * side
    points = np.stack([bristle_x, bristle_y], axis=-1).tolist()
    colours = _to_uint8(paint[:, None] * (relief + grain)[:, :, None]).tolist()
    thickness = np.maximum(1, np.round(1.7 * width * side / brush.bristles)).astype(int).tolist()
    for stroke in range(brush.num_strokes):
        for line, colour in zip(points[stroke], colours[stroke], strict=True):
            draw.line([tuple(point) for point in line], fill=tuple(colour), width=thickness[stroke])


def _paint_stars(draw: ImageDraw.ImageDraw, *, side: int, rng: np.random.Generator) -> None:
    """Draw dabs of white and lemon in the centre of every vortex."""
    for vortex in _VORTICES:
        for _ in range(26 if vortex.star else 9):
            angle, reach = rng.uniform(0.0, 2.0 * np.pi), 0.20 * vortex.radius * np.sqrt(rng.uniform())
            x = (vortex.x + reach * np.cos(angle)) * side
            y = (vortex.y + reach * np.sin(angle)) * side
            dab = 0.045 * vortex.radius * side + 1.0
            colour = np.array(_WHITE if rng.uniform() < 0.6 else _LEMON) * rng.uniform(0.93, 1.02)
            draw.ellipse((x - dab, y - 0.6 * dab, x + dab, y + 0.6 * dab), fill=_rgb(colour))


def _rgb(colour: FloatArray) -> tuple[int, int, int]:
    red, green, blue = (round(255.0 * min(1.0, max(0.0, float(part)))) for part in colour)
    return red, green, blue


def _varnish(image: Image.Image) -> Image.Image:
    """Shade the relief of the paint as if lit from the upper left, and sharpen it slightly."""
    tone = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float64) / 255.0
    slope = np.zeros_like(tone)
    slope[1:, 1:] = tone[1:, 1:] - tone[:-1, :-1]
    lit = np.asarray(image, dtype=np.float64) / 255.0 + 0.22 * slope[..., None]
    return Image.fromarray(_to_uint8(lit), "RGB")
