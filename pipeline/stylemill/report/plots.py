"""Line charts as inline SVG, drawn without a library or a script; the colours are in the page's style sheet.

``line_chart`` cleans and thins the series, chooses the range of both axes and draws the same chart twice: for wide and
for narrow screens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 54.0, 14.0, 14.0, 40.0
_NARROW_PX = 380.0
_MAX_POINTS = 320
"""Longer lines are thinned to this number of points."""
_MAX_DECADES = 5.0
"""Range of a logarithmic axis: values further below the largest one are drawn at the lower edge."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart; values that are not finite (or not positive on a logarithmic axis) leave a gap."""

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    emphasis: bool = False
    """Draw a bold, smoothed line over a faint line of the raw values."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart, drawn for wide and for narrow screens so that its text is legible on both."""

    title: str
    wide: Markup
    narrow: Markup
    series_names: tuple[str, ...]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    log_y: bool = False,
    width_px: float = 1100.0,
    height_px: float = 300.0,
) -> Chart | None:
    """Draw lines over a common x axis.

    Args:
        series: lines to draw, at least one; a series with fewer than two usable values is left out.
        title: title for screen readers.
        x_label: unit of the x axis.
        log_y: logarithmic y axis; zero and negative values leave gaps.
        width_px: width of the drawing for wide screens at its natural scale.
        height_px: height of both drawings.

    Returns:
        The chart, or None if there is nothing to draw.
    """
    lines = [_usable(one, log_y) for one in series]
    kept = [(one, x, y) for one, (x, y) in zip(series, lines, strict=True) if np.isfinite(y).sum() >= 2]
    if not kept:
        return None
    axes = _Range.around([(x, y) for _, x, y in kept], log_y)
    drawings = [
        _draw(kept, _Canvas(axes=axes, width=width, height=height_px), title=title, x_label=x_label)
        for width in (width_px, _NARROW_PX)
    ]
    names = tuple(one.name for one, _, _ in kept)
    return Chart(title=title, wide=drawings[0], narrow=drawings[1], series_names=names)


@dataclass(frozen=True, kw_only=True)
class _Range:
    """Range of both axes; y is a decimal logarithm if ``log`` is set."""

    x_from: float
    x_to: float
    y_from: float
    y_to: float
    log: bool

    @classmethod
    def around(cls, lines: Sequence[tuple[np.ndarray, np.ndarray]], log: bool) -> _Range:
        xs = np.concatenate([x for x, _ in lines])
        ys = np.concatenate([y[np.isfinite(y)] for _, y in lines])
        if log:
            ys = np.log10(ys)
        low, high = float(ys.min()), float(ys.max())
        if log:
            low = max(low, high - _MAX_DECADES)
        if not log:
            low = min(low, 0.0) if low < 0.35 * high else low
        room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
        x_low, x_high = float(xs.min()), float(xs.max())
        bottom = low if low == 0.0 and not log else low - room
        return cls(x_from=x_low, x_to=max(x_high, x_low + 1e-9), y_from=bottom, y_to=high + room, log=log)


def _usable(series: Series, log_y: bool) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(series.x, dtype=np.float64)
    y = np.asarray(series.y, dtype=np.float64)
    good = np.isfinite(x) & np.isfinite(y) & ((y > 0.0) if log_y else True)
    y = np.where(good, y, np.nan)
    keep = np.isfinite(x)
    return _thinned(x[keep], y[keep])


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring points down to _MAX_POINTS; a bin without a finite value stays a gap."""
    if len(x) <= _MAX_POINTS:
        return x, y
    edges = np.linspace(0, len(x), _MAX_POINTS + 1).astype(int)
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(float), edges[:-1])
    sums = np.add.reduceat(np.where(known, y, 0.0), edges[:-1])
    widths = np.diff(edges)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return np.add.reduceat(x, edges[:-1]) / widths, means


def _smoothed(y: np.ndarray) -> np.ndarray:
    """Return the running mean over about a twentieth of the line; gaps do not count."""
    half = min(max(1, len(y) // 40), (len(y) - 1) // 2)
    known = np.isfinite(y)
    window = np.ones(2 * half + 1)
    total = np.convolve(np.where(known, y, 0.0), window, mode="same")
    weight = np.convolve(known.astype(float), window, mode="same")
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=known)


@dataclass(frozen=True, kw_only=True)
class _Canvas:
    """Maps values within a range to coordinates of a drawing; the page scales the drawing."""

    axes: _Range
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.width - _MARGIN_RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _MARGIN_BOTTOM

    def at_x(self, values: np.ndarray) -> np.ndarray:
        share = (values - self.axes.x_from) / (self.axes.x_to - self.axes.x_from)
        return _MARGIN_LEFT + share * (self.right - _MARGIN_LEFT)

    def at_y(self, values: np.ndarray) -> np.ndarray:
        share = np.maximum((values - self.axes.y_from) / (self.axes.y_to - self.axes.y_from), 0.0)
        return self.bottom - share * (self.bottom - _MARGIN_TOP)

    def line(self, x: np.ndarray, y: np.ndarray, css_class: str) -> Markup:
        return _path(self.at_x(x), self.at_y(np.log10(y) if self.axes.log else y), css_class)


def _draw(
    lines: Sequence[tuple[Series, np.ndarray, np.ndarray]], canvas: _Canvas, *, title: str, x_label: str
) -> Markup:
    opening = Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    parts = [opening.format(canvas.width, canvas.height, title), *_axes(canvas, x_label)]
    for number, (series, x, y) in enumerate(lines):
        if series.emphasis:
            parts.append(canvas.line(x, y, f"line raw s{number}"))
            parts.append(canvas.line(x, _smoothed(y), f"line bold s{number}"))
        else:
            parts.append(canvas.line(x, y, f"line s{number}"))
    return Markup("").join([*parts, Markup("</svg>")])


def _axes(canvas: _Canvas, x_label: str) -> list[Markup]:
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    grid = Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>')
    parts = []
    for value, label in _y_ticks(canvas.axes):
        y = float(canvas.at_y(np.array(value)))
        parts.append(grid.format(_MARGIN_LEFT, y, canvas.right))
        parts.append(text.format(_MARGIN_LEFT - 8, y + 4, "end", label))
    wanted = 4 if canvas.width < 600 else 8
    for value in _round_steps(canvas.axes.x_from, canvas.axes.x_to, wanted):
        x = float(canvas.at_x(np.array(value)))
        parts.append(text.format(x, canvas.bottom + 18, "middle", f"{value:,.6g}"))
    parts.append(text.format(canvas.right, canvas.bottom + 35, "end", x_label))
    return parts


def _path(x: np.ndarray, y: np.ndarray, css_class: str) -> Markup:
    steps, pen_down = [], False
    for px, py in zip(x, y, strict=True):
        if not math.isfinite(py):
            pen_down = False
            continue
        steps.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
        pen_down = True
    return Markup('<path class="{}" d="{}"/>').format(css_class, "".join(steps))


def _y_ticks(axes: _Range) -> list[tuple[float, str]]:
    """Return (position, label) pairs: 1-2-5 steps, or on a logarithmic axis decades and steps within them."""
    if not axes.log:
        return [(value, f"{value:,.6g}") for value in _round_steps(axes.y_from, axes.y_to, 5)]
    decades = range(math.floor(axes.y_from), math.ceil(axes.y_to) + 1)
    for leads in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        values = [lead * 10.0**decade for decade in decades for lead in leads]
        inside = [value for value in values if axes.y_from <= math.log10(value) <= axes.y_to]
        if len(inside) >= 4:
            break
    return [(math.log10(value), f"{value:,.6g}") for value in inside]


def _round_steps(low: float, high: float, wanted: int) -> list[float]:
    """Return round values (multiples of 1, 2 or 5 times a power of ten) within [low, high]."""
    rough = (high - low) / max(1, wanted)
    if rough <= 0.0:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]
