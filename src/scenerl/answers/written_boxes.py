"""Boxes as models write them, four numbers, two points, text, or sides by name, and where they stand in a text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeGuard

from scenerl.answers.json_text import Found, find_values

_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
SIZES = (("left", "top", "width", "height"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
"""The left and the top edge, and the size."""
_POINTS = (("top_left", "bottom_right"), ("topleft", "bottomright"))
NUMBER = r"-?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?"
"""A coordinate in text: ``12``, ``1.5``, ``.5``, ``1e-1``."""
_NUMBER = re.compile(NUMBER)
_ONLY_NUMBERS = re.compile(r"[-+0-9.eE,;\s()\[\]]{1,200}")
_CURLY = (
    {ord(mark): '"' for mark in "“”„＂"},
    {ord(mark): '"' for mark in "“”„＂"} | {ord(mark): "'" for mark in "‘’"},
)
"""Typographic quotes to plain ones: those around text first, then apostrophes, too."""
_WIDE = str.maketrans("，：；［］｛｝", ",:;[]{}")
_WIDE_OR_TEXT = re.compile(r"\"[^\"\n]*+\"|[，：；［］｛｝]")
"""Wide punctuation, and what is in quotes, where it stays."""
_JSON_NUMBER = r"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?(?:[eE][-+]?[0-9]{1,3})?"
"""One that the scanner of JSON reads, too, which is asked for places."""
_IN_PARENTHESES = re.compile(rf"\((?:\s?{_JSON_NUMBER}\s?,){{3}}\s?{_JSON_NUMBER}\s?\)")
_NUMBERS = re.compile(_JSON_NUMBER)
_FOUR_NUMBERS = re.compile(r"\[(?:\s?-?[0-9.]{1,30}\s?,){3}\s?-?[0-9.]{1,30}")


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
    """The keys of left, top, right and bottom, or others that state a box; empty where it has none, or more corners."""
    if "x3" in box:
        return ()
    return next((keys for keys in (*_CORNERS, *SIZES, *_POINTS) if box.keys() >= {*keys}), ())


def find_boxes(body: str, inner: str) -> tuple[Found, str]:
    """The JSON values or Python literals in a text, and the text itself, with plain quotes or punctuation in place of
    typographic and wide ones where it is broken otherwise; places stay what they are. Beside boxes alone, those in
    parentheses, too."""
    found = find_values(body, inner, or_python=True)
    for table in (None, *_CURLY) if found.broken else ():
        plain, plain_inner = (_narrow(text) if table is None else text.translate(table) for text in (body, inner))
        again = find_values(plain, plain_inner, or_python=True)
        if again.values and not again.broken:
            return replace(again, alone=False), plain
    if not (found.broken or found.breaks_off) and all(is_box(value) or is_boxes(value) for value, *_ in found.values):
        values, last = [], 0
        for value in (*found.values, (None, len(body), len(body))):
            boxes = _IN_PARENTHESES.finditer(body, last, value[1])
            values += [([float(number) for number in _NUMBERS.findall(box[0])], *box.span()) for box in boxes]
            values.append(value)
            last = value[2]
        if len(values) > len(found.values) + 1:
            return Found(values[:-1], python=True), body
    return found, body


def _narrow(text: str) -> str:
    return _WIDE_OR_TEXT.sub(lambda found: found[0] if found[0][0] == '"' else found[0].translate(_WIDE), text)


def lost_box(body: str, found: Found) -> str:
    """What a value holds that breaks off or is broken, if it may be a box."""
    ends = [end for _, _, end in found.values]
    starts = [*(start for _, start, _ in found.values[1:]), len(body)]
    if found.breaks_off and "{" in body[ends[-1] :]:
        return body[ends[-1] :].strip()
    between = (body[end:start] for end, start in zip([0, *ends], [found.values[0][1], *starts], strict=True))
    return next((lost[0] for text in between if (lost := _FOUR_NUMBERS.search(text))), "")
