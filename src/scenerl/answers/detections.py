"""The ``detections`` format, as VLM-R1 has it, and the lists of boxes that other models write in its place.

Written: ``[{"bbox_2d": [x1, y1, x2, y2], "label": "dog"}]``, or the word ``None`` (in any case, with or without a full
stop) or ``[]`` where nothing is found. It holds no relations.

Read besides, but not counted as in the template: one object alone, one per line, several lists one after another
(merged; what a later list repeats counts once), a list per class behind the class's name or under it in a JSON
object, the keys in :data:`LABEL_KEYS` and :data:`BOX_KEYS`, corners by name (``x1``, ``xmin``, ``left`` and so on),
several boxes of one label. A box without a label has the requested one where only one is requested. Points have no box
and are dropped as such.

``gemini`` is the same with the key ``box_2d`` and boxes as y1, x1, y2, x2, from 0 to 1000.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scenerl.answers.elements import MAX_OBJECTS, GraphBuilder, Place, Reading, Span, clean_label
from scenerl.answers.json_text import find_values, inside, leaf, leaf_spans
from scenerl.answers.template import TAGS, unfence

INSTRUCTION = """\
Find every instance of these in the image: {query}.
Some of them may be absent. Answer with one JSON list, shaped like this:
[{{"bbox_2d": [x1, y1, x2, y2], "label": "..."}}]
Boxes are left, top, right, bottom {unit}.
Use the names above as labels. If none of them is there, answer None."""

REFERRING_INSTRUCTION = """\
Find the one object in the image that this sentence describes: {query}
Answer with one JSON list of one box, shaped like this:
[{{"bbox_2d": [x1, y1, x2, y2], "label": "..."}}]
The box is left, top, right, bottom {unit}. Use the sentence as label."""

GEMINI_INSTRUCTION = """\
Find every instance of these in the image: {query}.
Some of them may be absent. Answer with one JSON list, shaped like this:
[{{"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}}]
Boxes are integers from 0 to 1000 relative to the image.
Use the names above as labels. If none of them is there, answer None."""

LABEL_KEYS = ("label", "name", "category", "class")
BOX_KEYS = ("bbox_2d", "bbox", "box")
GEMINI_KEYS = ("box_2d",)
POINT_KEYS = ("point_2d", "point")
_NO_CLASSES = frozenset(
    (*LABEL_KEYS, *BOX_KEYS, *GEMINI_KEYS, *POINT_KEYS, "objects", "relationships", "detections", "boxes", "bboxes")
)
"""Keys and headings that are never the name of a class."""
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)

NONE = re.compile(r"none\.?", re.IGNORECASE)
_NONE_LINE = re.compile(r"^[ \t]*none\.?[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile("|".join(map(re.escape, TAGS)))
_LOOK_BACK = 300
"""Characters before a list in which its class's name is looked for."""
_MAX_WORDS = 3
"""Words of such a name where any label is allowed; more are a sentence."""


def write(labels: Sequence[str], boxes: Sequence[list], relations: Sequence[tuple[int, str, int]]) -> str:
    """The answer's text; ``relations`` are left out, because the format has no place for them."""
    if not labels:
        return "None"
    return json.dumps(
        [{"bbox_2d": box, "label": label} for label, box in zip(labels, boxes, strict=True)], ensure_ascii=False
    )


class _Element(NamedTuple):
    """An element of an answer: what it is, its label where that is known, and its box as it stands.

    ``start`` is where its JSON value begins in the text; ``label_path`` and ``box_path`` lead from there to its parts,
    None where they are not in it. ``label_span``: the characters of a label that stands before the value.
    """

    raw: object
    start: int
    label: object = None
    label_path: tuple | None = None
    box: object = None
    box_path: tuple | None = None
    label_span: Span | None = None


def _is_box(value: object) -> bool:
    return type(value) is list and len(value) == 4 and all(type(number) in (int, float) for number in value)


def _is_boxes(value: object) -> bool:
    return type(value) is list and bool(value) and all(map(_is_box, value))


@dataclass(frozen=True, slots=True)
class _Lists:
    """Takes JSON values apart into elements.

    ``names``: the requested labels, None where any is allowed. ``needs_key``: boxes without a key that says what they
    are do not count.
    """

    box_keys: tuple[str, ...]
    point_keys: tuple[str, ...]
    names: tuple[str, ...] | None
    needs_key: bool = False

    def elements(self, value: object, start: int, label: str | None) -> list[_Element] | None:
        """The elements of a value, None where it is no answer.

        Args:
            start: where it begins in the text.
            label: of boxes that have none of their own; None where it is not known.
        """
        if type(value) is list:
            if is_list(value):
                return self._of_list(value, start, (), label)
            return None if label is None else self._bare(value, start, (), label)
        if type(value) is not dict:
            return None
        if self._has_place(value):
            return self._of_dict(value, start, (), label)
        for key, inner in value.items():  # {"objects": [{"label": "dog", "bbox": [...]}]}
            if type(inner) is list and any(self._is_whole(item) for item in inner):
                return self._of_list(inner, start, (key,), label)
        if value.keys() & _NO_CLASSES:
            return None
        found = [self._of_class(name, inner, start) for name, inner in value.items()]
        if None in found or not (any(found) or (found and value.keys() <= {*(self.names or ())})):
            return None
        return [element for elements in found for element in elements]

    def _is_whole(self, item: object) -> bool:
        return self._has_place(item) and any(key in item for key in LABEL_KEYS)

    def _has_place(self, item: object) -> bool:
        if type(item) is not dict:
            return False
        if any(key in item for key in (*self.box_keys, *self.point_keys)):
            return True
        return not self.needs_key and bool(_corners(item))

    def _of_class(self, name: str, value: object, start: int) -> list[_Element] | None:
        """The elements of a class in ``{"dog": [[x1, y1, x2, y2], …], "cat": []}``."""
        if value is None or value == []:
            return []
        if type(value) is list and all(map(self._has_place, value)):
            return self._of_list(value, start, (name,), name)
        return self._bare(value, start, (name,), name)

    def _of_list(self, items: list, start: int, path: tuple, label: str | None) -> list[_Element]:
        found = []
        for n, item in enumerate(items):
            is_dict = type(item) is dict
            found += self._of_dict(item, start, (*path, n), label) if is_dict else [_Element(item, start)]
        return found

    def _of_dict(self, item: dict, start: int, path: tuple, label: str | None) -> list[_Element]:
        key, box_key = _first(LABEL_KEYS, item), _first(self.box_keys, item)
        own, label_path = (label, None) if key is None else (item[key], (*path, key))
        if box_key is None and not self.needs_key and _corners(item):
            return [_Element(item, start, own, label_path, item, path)]
        if box_key is None:
            return [_Element(item, start, own, label_path)]
        box, path = item[box_key], (*path, box_key)
        if type(box) is list and box and type(box[0]) is list and _is_boxes(box):
            return [_Element(item, start, own, label_path, one, (*path, n)) for n, one in enumerate(box)]
        return [_Element(item, start, own, label_path, box, path)]

    def _bare(self, value: object, start: int, path: tuple, label: str) -> list[_Element] | None:
        """Boxes alone: one, or a list of them."""
        if self.needs_key:
            return None
        if _is_box(value):
            return [_Element(value, start, label, None, value, path)]
        if _is_boxes(value):
            return [_Element(box, start, label, None, box, (*path, n)) for n, box in enumerate(value)]
        return None


def _first(keys: tuple[str, ...], item: dict) -> str | None:
    """The first of some keys that an object has."""
    for key in keys:
        if key in item:
            return key
    return None


def is_list(value: object) -> bool:
    """Whether a decoded JSON value has the shape that is written: a list of objects, or an empty one."""
    return type(value) is list and (not value or any(type(item) is dict for item in value))


def _heading(body: str, start: int, end: int, names: tuple[str, ...] | None) -> tuple[str, Span] | None:
    """The name before a list, and where it is: what stands before the colon that ends ``body[start:end]``, without the
    marks of an enumeration around it. It is one of ``names``, or a few words where any label is allowed."""
    head, colon, rest = body[start:end].replace("：", ":").rpartition(":")
    if not colon or rest.strip(" \t\r\n`*").lower() not in ("", "json"):
        return None
    line = head.rpartition("\n")[2].rpartition(":")[2]
    name = clean_label(line.strip(" \t\r\"'`*#-•,"))
    if name is None or name in _NO_CLASSES:
        return None
    if len(name.split()) > _MAX_WORDS if names is None else name not in names:
        return None
    first = start + len(head) - len(line) + line.index(name)
    return name, (first, first + len(name))


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the detections in ``body``, behind its last tag with any, into ``builder``."""
    return _read(body, builder, _Lists(BOX_KEYS, POINT_KEYS, builder.objects), list)


def read_gemini(body: str, builder: GraphBuilder) -> Reading:
    """The same with Gemini's key and order of coordinates."""
    lists = _Lists(GEMINI_KEYS, ("point",), builder.objects, needs_key=True)
    return _read(body, builder, lists, lambda box: [box[1], box[0], box[3], box[2]])


def _read(body: str, builder: GraphBuilder, lists: _Lists, to_xyxy: Callable[[list], list]) -> Reading:
    inner = unfence(body)
    if NONE.fullmatch(inner):
        return Reading(None, True)
    found = find_values(body, inner)
    damaged = found.broken or found.breaks_off
    tags = [] if found.alone else [tag.start() for tag in _TAG.finditer(body)]
    parts: list[tuple[int, list[_Element]]] = []  # (number of the tag before it, elements)
    before = 0
    for value, start, end in found.values:
        heading = _heading(body, max(before, start - _LOOK_BACK), start, builder.objects)
        elements = lists.elements(value, start, heading[0] if heading else builder.only_label)
        if elements and heading:
            elements = [item if item.label_path else item._replace(label_span=heading[1]) for item in elements]
        before = end
        # Beside broken JSON, only a list with elements is believed: anything less may be a splinter of what is broken,
        # and could not parse must not become found nothing.
        if elements is not None and (not damaged or (elements and is_list(value))):
            parts.append((bisect(tags, start), elements))
    last = max((number for number, _ in parts), default=-1)
    nones = () if damaged or found.alone else _NONE_LINE.finditer(body)
    if last < max((bisect(tags, line.start()) for line in nones), default=-1):
        return Reading(None, False)
    if not parts:
        return Reading(found.failure, found.alone)
    merged = _merged([elements for number, elements in parts if number == last])
    for where, element in builder.bounded(merged, "detections", MAX_OBJECTS):
        label = clean_label(element.label)
        if label is None or element.box_path is None:
            is_point = label is not None and type(element.raw) is dict and element.raw.keys() & {*lists.point_keys}
            builder.drop("point" if is_point else "malformed_object", where, element.raw)
        else:
            box = element.box
            if type(box) is dict:
                box = [box[key] for key in _corners(box)]
            elif type(box) is list and len(box) == 4:
                box = to_xyxy(box)
            builder.add_object(where, label, box, where, element.raw)
    alone = found.alone and is_list(found.values[0][0])
    return Reading(None, alone, objects=_places(body, merged))


def _corners(box: dict) -> tuple[str, ...]:
    """The keys of left, top, right and bottom; empty where it has none."""
    return next((keys for keys in _CORNERS if box.keys() >= {*keys}), ())


def _merged(lists: list[list[_Element]]) -> list[_Element]:
    """All elements, without those that a later list repeats."""
    if len(lists) == 1:
        return lists[0]
    seen: set[str] = set()
    kept: list[list[_Element]] = []
    for elements in reversed(lists):
        keys = [repr((element.label, element.box)) for element in elements]
        kept.append([element for key, element in zip(keys, elements, strict=True) if key not in seen])
        seen.update(keys)
    return [element for elements in reversed(kept) for element in elements]


def _places(body: str, elements: list[_Element]) -> Callable[[int], Place | None]:
    """Where the element of a number stands; its JSON value is gone through once."""
    spans: dict[int, object] = {}

    def place(number: int) -> Place | None:
        element = elements[number]
        if element.start not in spans:
            spans[element.start] = leaf_spans(body, element.start)
        value = spans[element.start]
        sides = range(4) if type(element.box) is list else _corners(element.box)
        box = [leaf(value, *element.box_path, side) for side in sides]
        if None in box:
            return None
        path = element.label_path
        return Place(element.label_span if path is None else inside(body, value, *path), tuple(box))

    return place
