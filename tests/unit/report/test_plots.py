from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from stylemill.report.plots import Series, line_chart


def _paths(svg, css_class):
    root = ET.fromstring(str(svg))
    return [path.get("d") for path in root.iter("path") if css_class in path.get("class").split()]


def _points(path):
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)])


def _labels(svg):
    return [text.text for text in ET.fromstring(str(svg)).iter("text")]


def test_a_straight_line_is_drawn_straight_and_within_the_frame():
    chart = line_chart([Series(name="a", x=[0, 1, 2, 3], y=[0, 10, 20, 30])], title="t", x_label="step")
    (path,) = _paths(chart.wide, "s0")
    points = _points(path)
    assert len(points) == 4
    assert np.allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.11)
    assert np.allclose(np.diff(points[:, 1]), np.diff(points[:, 1])[0], atol=0.11)
    assert points[0, 1] > points[-1, 1], "larger values lie higher"
    assert points.min() > 0
    assert points[:, 0].max() <= 1100
    assert points[:, 1].max() <= 300


def test_equal_factors_are_equal_steps_on_a_logarithmic_axis():
    chart = line_chart([Series(name="a", x=[0, 1, 2, 3], y=[1, 10, 100, 1000])], title="t", x_label="step", log_y=True)
    heights = _points(_paths(chart.wide, "s0")[0])[:, 1]
    assert np.allclose(np.diff(heights), np.diff(heights)[0], atol=0.11)
    assert {"1", "10", "100", "1,000"} <= set(_labels(chart.wide))


def test_what_cannot_be_drawn_leaves_a_gap():
    y = [1.0, 2.0, np.nan, 3.0, 0.0, 4.0, 5.0]
    chart = line_chart([Series(name="a", x=range(7), y=y)], title="t", x_label="step", log_y=True)
    (path,) = _paths(chart.wide, "s0")
    assert path.count("M") == 3
    assert len(_points(path)) == 5


def test_nothing_to_draw_is_none():
    assert line_chart([Series(name="a", x=[], y=[])], title="t", x_label="step") is None
    assert line_chart([Series(name="a", x=[0, 1], y=[np.nan, 1.0])], title="t", x_label="step") is None
    flat_zero = [Series(name="tv", x=[0, 1], y=[0.0, 0.0])]
    assert line_chart(flat_zero, title="t", x_label="step", log_y=True) is None


def test_unusable_series_are_left_out_of_the_legend():
    chart = line_chart(
        [Series(name="gone", x=[0, 1], y=[np.nan, np.nan]), Series(name="kept", x=[0, 1], y=[1, 2])],
        title="t",
        x_label="step",
    )
    assert chart.series_names == ("kept",)
    assert len(_paths(chart.wide, "s0")) == 1


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12])
def test_a_constant_is_a_level_line(value):
    chart = line_chart([Series(name="a", x=[0, 1, 2], y=[value] * 3)], title="t", x_label="step")
    heights = _points(_paths(chart.wide, "s0")[0])[:, 1]
    assert np.ptp(heights) == 0.0
    assert 0 < heights[0] < 300


def test_a_long_run_is_thinned_without_moving_its_mean():
    x = np.arange(100_000)
    y = 5.0 + np.sin(x / 700.0)
    chart = line_chart([Series(name="a", x=x, y=y)], title="t", x_label="step")
    assert len(chart.wide) < 15_000
    assert 250 < len(_points(_paths(chart.wide, "s0")[0])) <= 320


def test_titles_and_units_are_escaped():
    chart = line_chart([Series(name="a", x=[0, 1], y=[1, 2])], title='"><script>', x_label="<b>&")
    root = ET.fromstring(str(chart.wide))
    assert root.get("aria-label") == '"><script>'
    assert "<b>&" in _labels(chart.wide)
    assert "<script>" not in chart.wide


@pytest.mark.parametrize("num_points", [2, 3, 4, 5, 40, 1000])
def test_a_line_of_any_length_can_be_smoothed(num_points):
    """A run of two steps has a loss curve as well."""
    series = Series(name="loss", x=range(num_points), y=[3.0] * num_points, emphasis=True)
    chart = line_chart([series], title="t", x_label="step", log_y=True)
    raw, smooth = (_points(path) for path in _paths(chart.wide, "s0"))
    assert len(raw) == len(smooth) == min(num_points, 320)
    assert np.allclose(raw[:, 1], smooth[:, 1])
