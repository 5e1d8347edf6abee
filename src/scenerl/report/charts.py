"""Geometry of the drawings: values over steps, and how often a prediction of a confidence is right.

Nothing here writes SVG: the templates do, so that every text is escaped there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scenerl.metrics.file import Metrics, Reliability
from scenerl.report.text import short

WIDTH, HEIGHT = 320, 168
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 24
MAX_POINTS = 400
SMOOTH_FROM = 40
SIDE, MARGIN = 200, 30


@dataclass(frozen=True, slots=True)
class Line:
    """One series in a chart: SVG path data, the end point in pixels, and the points for the reader's pointer.

    ``raw`` is the faint line of single values, or the intervals of the points; it is empty where there are too few
    points to smooth. ``first`` and ``last`` are means over the first and the last twentieth of the values.
    """

    name: str
    index: int
    path: str
    raw: str
    end: tuple[float, float]
    steps: tuple[float, ...]
    values: tuple[float, ...]
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class LineChart:
    """A chart of WIDTH x HEIGHT. Ticks are (pixel, text)."""

    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_range: tuple[float, float]

    @property
    def pointer(self) -> dict:
        """What the script needs to show values under the pointer."""
        lines = [
            {"name": short(line.name), "steps": line.steps, "values": [float(f"{value:.5g}") for value in line.values]}
            for line in self.lines
        ]
        return {"range": self.x_range, "lines": lines}


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers from at or below ``low`` to at or above ``high``.

    >>> nice_ticks(0.0, 0.83)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    # Beyond these a range cannot be divided in floating point; it is drawn as flat.
    if not high - low > max(1e-12 * max(abs(low), abs(high)), 1e-290):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(12, 3 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number in at most about six characters: 0, 0.25, 1.5, 1,200, 2e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def smooth(values: Sequence[float]) -> list[float]:
    """Means of a window around each value, a fifteenth of the series wide; it is cut off at both ends."""
    half, places = max(1, len(values) // 30), np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    sums = np.cumsum([0.0, *values])
    return ((sums[last] - sums[first]) / (last - first)).tolist()


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most ``limit`` points, each the mean of its neighbours, so that a long log does not make a large page."""
    if len(points) <= limit:
        return list(points)
    edges = [index * len(points) // limit for index in range(limit + 1)]
    parts = (points[first:last] for first, last in pairwise(edges))
    return [(_mean([x for x, _ in part]), _mean([y for _, y in part])) for part in parts]


def line_chart(
    series: Sequence[tuple[str, int, Sequence[tuple[float, float]]]],
    intervals: Sequence[Sequence[tuple[float, float]]] = (),
) -> LineChart:
    """A chart of several series.

    Args:
        series: (name, palette index, points as (step, value)); every series has a point, all numbers are finite.
        intervals: (low, high) of each point of each series, which are then few and not smoothed; empty: none are drawn.
    """
    drawn = [(name, index, thin(points)) for name, index, points in series]
    xs = [x for _, _, points in drawn for x, _ in points]
    ys = [y for _, _, points in drawn for _, y in points] + [end for own in intervals for ends in own for end in ends]
    low = 0.0 if 0.0 <= min(ys) < max(ys) * 0.6 else min(ys)
    ticks = nice_ticks(low, max(ys))
    x_low, x_high = min(xs), max(xs)
    if x_high == x_low:
        x_low, x_high = x_low - 1, x_high + 1

    def x_pixel(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_pixel(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for place, (name, index, points) in enumerate(drawn):
        steps, values = [x for x, _ in points], [y for _, y in points]
        calm = smooth(values) if len(values) >= SMOOTH_FROM else values
        edge = len(values) // 20 + 1
        main = [(x_pixel(x), y_pixel(y)) for x, y in zip(steps, calm, strict=True)]
        raw = _path([(x_pixel(x), y_pixel(y)) for x, y in points]) if calm is not values else ""
        if intervals:
            ends = zip(steps, intervals[place], strict=True)
            raw = "".join(_path([(x_pixel(x), y_pixel(low)), (x_pixel(x), y_pixel(high))]) for x, (low, high) in ends)
        lines.append(
            Line(
                name,
                index,
                _path(main),
                raw,
                main[-1],
                tuple(steps),
                tuple(values),
                _mean(values[:edge]),
                _mean(values[-edge:]),
            )
        )
    x_marks = [tick for tick in nice_ticks(x_low, x_high) if x_low <= tick <= x_high]
    return LineChart(
        tuple(lines),
        tuple((x_pixel(tick), number(tick)) for tick in x_marks),
        tuple((y_pixel(tick), number(tick)) for tick in ticks),
        (x_low, x_high),
    )


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """One stage's curve: SVG path data, dots as (x, y, radius, text), and the text of its error."""

    name: str
    index: int
    path: str
    dots: tuple[tuple[float, float, float, str], ...]
    ece: str


@dataclass(frozen=True, slots=True)
class ReliabilityChart:
    """A square of SIDE with MARGIN at its left and bottom. Ticks are (x, y, text) in pixels from the upper left."""

    target: str
    title: str
    curves: tuple[ReliabilityCurve, ...]
    ticks: tuple[tuple[float, float, str], ...]


def reliability_charts(target: str, results: Sequence[tuple[str, int, Metrics]]) -> list[ReliabilityChart]:
    """A chart of objects and one of relations, of the stages that have them.

    Args:
        target: the ground truth's name.
        results: stage name, palette index and metrics.
    """
    charts = []
    for kind, title in (("objects", "Objects"), ("relations", "Relations")):
        found = [(name, index, result.calibration.get(kind)) for name, index, result in results]
        curves = tuple(_reliability_curve(name, index, curve) for name, index, curve in found if curve and curve.points)
        if curves:
            ticks = tuple((*_place(share, share), f"{share:g}") for share in (0.0, 0.5, 1.0))
            charts.append(ReliabilityChart(target, title, curves, ticks))
    return charts


def _reliability_curve(name: str, index: int, curve: Reliability) -> ReliabilityCurve:
    most = max(count for _, _, count in curve.points)
    places = [_place(confidence, accuracy) for confidence, accuracy, _ in curve.points]
    dots = tuple(
        # The area of a dot is the bin's share of the largest bin.
        (
            *place,
            round(1.5 + 4 * (count / most) ** 0.5, 1),
            f"{short(name)}: {accuracy:.2f} right at {confidence:.2f}, {count:,}",
        )
        for place, (confidence, accuracy, count) in zip(places, curve.points, strict=True)
    )
    return ReliabilityCurve(name, index, _path(places), dots, "" if curve.ece is None else f"{curve.ece:.3f}")


def _place(confidence: float, accuracy: float) -> tuple[float, float]:
    inner = SIDE - MARGIN - 8
    return round(MARGIN + confidence * inner, 1), round(8 + (1 - accuracy) * inner, 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""
