"""Boxes as models write them: four numbers, two points, text, or sides by name."""

from __future__ import annotations

import re
from typing import TypeGuard

_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
SIZES = (("left", "top", "width", "height"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
"""The left and the top edge, and the size."""
_POINTS = (("top_left", "bottom_right"), ("topleft", "bottomright"))
_NUMBER = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?")
_ONLY_NUMBERS = re.compile(r"[-0-9.,;\s()\[\]]{1,200}")


def is_box(value: object) -> TypeGuard[list]:
    """Whether it is a list of four numbers."""
    return type(value) is list and len(value) == 4 and all(type(number) in (int, float) for number in value)


def is_boxes(value: object) -> bool:
    """Whether it is a list of lists of four numbers, at least one."""
    return type(value) is list and bool(value) and all(map(is_box, value))


def flat(box: object) -> list | None:
    """Four numbers: as they are, as two points, in text; None where there are fewer or more."""
    if is_box(box):
        return box
    if type(box) is str:
        box = _NUMBER.findall(box) if _ONLY_NUMBERS.fullmatch(box) else []
    if type(box) is list and len(box) == 2 and all(type(point) is dict and len(point) == 2 for point in box):
        box = [[*map(point.get, ("x", "y"))] for point in box]
    if type(box) is list and len(box) == 2 and all(type(point) is list and len(point) == 2 for point in box):
        box = [*box[0], *box[1]]
    if type(box) is list and len(box) == 4 and all(type(item) is str and _NUMBER.fullmatch(item) for item in box):
        box = [float(item) for item in box]
    return box if is_box(box) else None


def corners(box: dict) -> tuple[str, ...]:
    """The keys of left, top, right and bottom, or others that state a box; empty where it has none."""
    return next((keys for keys in (*_CORNERS, *SIZES, *_POINTS) if box.keys() >= {*keys}), ())
