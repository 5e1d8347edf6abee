"""The upright boxes around shapes that annotation tools draw, xyxy in the unit of the coordinates; x to the right, y
down, angles in degrees clockwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scenerl.types import Box

Point = tuple[float, float]


def box_around(points: Sequence[Point]) -> Box:
    """
    >>> box_around([(25, 20), (40, 30), (12, 60)])
    (12, 20, 40, 60)
    """
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def box_around_rectangle(box: Box, angle: float, pivot: Point) -> Box:
    """Of a rectangle that is turned about a point.

    >>> [round(number, 6) for number in box_around_rectangle((10, 30, 50, 40), 90, (30, 35))]
    [25.0, 15.0, 35.0, 55.0]
    """
    if not angle:
        return box
    x1, y1, x2, y2 = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = pivot
    corners = [(cx - x, cy - y) for cx in (x1, x2) for cy in (y1, y2)]
    return box_around([(x + dx * cos - dy * sin, y + dx * sin + dy * cos) for dx, dy in corners])


def box_around_ellipse(centre: Point, radii: Point, angle: float) -> Box:
    """
    >>> [round(number, 6) for number in box_around_ellipse((30, 35), (20, 5), 90)]
    [25.0, 15.0, 35.0, 55.0]
    """
    (x, y), (rx, ry) = centre, radii
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    width, height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return x - width, y - height, x + width, y + height
