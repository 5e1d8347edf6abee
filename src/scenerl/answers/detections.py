"""The ``detections`` format, as VLM-R1 has it, and the lists of boxes that other models write in its place.

Written: ``[{"bbox_2d": [x1, y1, x2, y2], "label": "dog"}]``, or the word ``None`` (in any case, with or without a full
stop) or ``[]`` where nothing is found. It holds no relations.

Read besides, but not counted as in the template: one object alone, one per line, several lists one after another
(merged; what a later list repeats counts once) or in one another, a list per class behind the class's name or under it
in a JSON object, a list of labels beside one of boxes, rows of a label and a box, the keys in :data:`LABEL_KEYS` and
:data:`BOX_KEYS` in upper or lower case, corners by name (``x1``, ``xmin``, ``left`` and so on), boxes as two points or
as text, several boxes of one label, and all of it as Python literals or with typographic quotes; InternVL's
``dog[[x1, y1, x2, y2]]`` without tags, and sentences that say where something is: ``The dog is at (x1, y1, x2, y2)``,
also in brackets. A box without a label has the requested one where
only one is requested. Points have no box and are dropped as such.

``gemini`` is the same with the key ``box_2d`` and boxes as y1, x1, y2, x2, from 0 to 1000.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scenerl.answers.elements import MAX_OBJECTS, GraphBuilder, Place, Reading, Span, clean_label
from scenerl.answers.headings import MAX_WORDS, heading_before, label_behind, label_under_key, other_heading
from scenerl.answers.json_text import inside, leaf, leaf_spans
from scenerl.answers.template import TAGS, unfence
from scenerl.answers.written_boxes import SIZES, corners, find_boxes, flat, is_box, is_boxes, lost_box

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

LABEL_KEYS = (
    "label",
    "name",
    "category",
    "class",
    "object",
    "labels",
    "class_name",
    "category_name",
    "object_name",
)
BOX_KEYS = (
    "bbox_2d",
    "bbox",
    "box",
    "bounding_box",
    "bbox_xyxy",
    "coordinates",
    "bboxes",
    "boxes",
)
GEMINI_KEYS = ("box_2d",)
POINT_KEYS = ("point_2d", "point")
_LIST_KEYS = frozenset(("objects", "detections", "results", "predictions", "annotations", "instances"))
"""Keys of lists of elements."""
_NO_CLASSES = frozenset((*LABEL_KEYS, *BOX_KEYS, *GEMINI_KEYS, *POINT_KEYS, *_LIST_KEYS, "relationships"))
"""Keys and headings that are never the name of a class."""

NONE = re.compile(r"none\.?", re.IGNORECASE)
_NONE_LINE = re.compile(r"^([^\n:：]{0,60}+[:：])?+[ \t]*none\.?[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile("|".join(map(re.escape, TAGS)))
_LOOK_BACK = 300
"""Characters before a list in which its class's name is looked for."""
_CONTINUES = re.compile(r"[\s,;*•\-0-9.)]*(?:and\s*)?")
"""What stands between the boxes of one name."""
_MAX_NESTING = 6


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
    None where they are not in it. ``sides``: keys of the coordinates in the box. ``label_span``: the characters of a
    label that stands before the value.
    """

    raw: object
    start: int
    label: object = None
    label_path: tuple | None = None
    box: object = None
    box_path: tuple | None = None
    sides: Sequence = range(4)
    label_span: Span | None = None


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

    def elements(self, value: object, start: int, label: str | None, path: tuple = ()) -> list[_Element] | None:
        """The elements of a value, None where it is no answer.

        Args:
            start: where it begins in the text.
            label: of boxes that have none of their own; None where it is not known.
            path: leads to the value from there.
        """
        if len(path) > _MAX_NESTING:
            return None
        if type(value) is dict:
            return self._of_dict(value, start, path, label)
        if type(value) is not list:
            return None
        if label is not None and not self.needs_key and (is_box(value) or is_boxes(value)):
            return self._boxes(value, value, start, label, None, path)
        if is_list(value):
            found = []
            for n, item in enumerate(value):
                inner = self.elements(item, start, label, (*path, n))
                found += [_Element(item, start)] if inner is None else inner
            return found
        rows = [None if self.needs_key else _row(item, start, (*path, n)) for n, item in enumerate(value)]
        if None not in rows:
            return rows
        if all(map(is_list, value)) and any(value):  # lists in a list
            inner = [self.elements(item, start, label, (*path, n)) for n, item in enumerate(value)]
            return None if None in inner else [element for elements in inner for element in elements]
        return None

    def _of_dict(self, item: dict, start: int, path: tuple, label: str | None) -> list[_Element] | None:
        key, box_key = _first(LABEL_KEYS, item), _first(self.box_keys, item)
        own, label_path = (label, None) if key is None or not item[key] else (item[key], (*path, key))
        if box_key is not None:
            found = self._boxes(item, item[box_key], start, own, label_path, (*path, box_key))
            for name, inner in item.items():  # parts of an object as a list in it
                if type(inner) is list and name != box_key and any(map(self._is_whole, inner)):
                    found = found + (self.elements(inner, start, label, (*path, name)) or [])
            return found
        if not self.needs_key and corners(item):
            return [_Element(item, start, own, label_path, item, path, corners(item))]
        if _is_point(item, self.point_keys) or (key is not None and path):
            return [_Element(item, start, own, label_path)]
        for name, inner in item.items():  # {"objects": [{"label": "dog", "bbox": [...]}]}
            is_wrapper = name.lower() in _LIST_KEYS and item.keys() == {name}
            if is_wrapper or (type(inner) is list and any(map(self._is_whole, inner))):
                return self.elements(inner, start, label, (*path, name))
        if {name.lower() for name in item} & _NO_CLASSES:
            return None
        found = [self._of_class(name, inner, start, (*path, name)) for name, inner in item.items()]
        if None in found or not (any(found) or (found and item.keys() <= {*(self.names or ())})):
            return None
        return [element for elements in found for element in elements]

    def is_as_written(self, element: _Element) -> bool:
        """Whether an element has the form that is requested, whatever its box and label hold."""
        if element.label is None or element.box_path is None:
            return True
        paths = (element.label_path or ())[1:], element.box_path[1:]
        return paths == (("label",), self.box_keys[:1]) and (is_box(element.box) or not flat(element.box))

    def _is_whole(self, item: object) -> bool:
        """Whether an item of a list is an element with a label of its own."""
        if type(item) is not dict or _first(LABEL_KEYS, item) is None:
            return False
        return bool(_first(self.box_keys, item) or _is_point(item, self.point_keys)) or (
            not self.needs_key and bool(corners(item))
        )

    def _of_class(self, name: str, value: object, start: int, path: tuple) -> list[_Element] | None:
        """The elements of a class in ``{"dog": [[x1, y1, x2, y2], …], "cat": []}``."""
        is_none = value is None or (type(value) is str and NONE.fullmatch(value.strip()))
        return [] if is_none else self.elements(value, start, name, path)

    def _boxes(
        self, raw: object, value: object, start: int, label: object, label_path: tuple | None, path: tuple
    ) -> list[_Element]:
        """The element of a box, or those of a list of them; a list of labels may belong to it."""
        if not is_boxes(value):
            if type(label) is list and len(label) == 1:
                label, label_path = label[0], label_path and (*label_path, 0)
            sides = corners(value) if type(value) is dict else range(4)
            return [_Element(raw, start, label, label_path, value, path, sides)]
        if type(label) is list and len(label) == len(value):
            return [
                _Element(raw, start, own, label_path and (*label_path, n), box, (*path, n))
                for n, (own, box) in enumerate(zip(label, value, strict=True))
            ]
        return [_Element(raw, start, label, label_path, box, (*path, n)) for n, box in enumerate(value)]


def _row(item: object, start: int, path: tuple) -> _Element | None:
    """The element of ``["dog", [x1, y1, x2, y2]]`` or ``["dog", x1, y1, x2, y2]``, or of either turned round."""
    if type(item) is not list or len(item) not in (2, 5):
        return None
    at = next((n for n in (0, len(item) - 1) if type(item[n]) is str), None)
    if at is None:
        return None
    if len(item) == 2:
        box, box_path, sides = item[1 - at], (*path, 1 - at), range(4)
    else:
        sides = range(1, 5) if at == 0 else range(4)
        box, box_path = [item[n] for n in sides], path
    return _Element(item, start, item[at], (*path, at), box, box_path, sides) if is_box(box) else None


def _is_point(item: dict, point_keys: tuple[str, ...]) -> bool:
    return any(key in item for key in point_keys) or (
        item.keys() >= {"x", "y"} and not corners(item) and _first(LABEL_KEYS, item) is not None
    )


def _first(keys: tuple[str, ...], item: dict) -> str | None:
    """The first of some keys that an object has, in upper or lower case."""
    for key in keys:
        if key in item:
            return key
    lower = {key.lower(): key for key in item}
    return next((lower[key] for key in keys if key in lower), None)


def is_list(value: object) -> bool:
    """Whether a decoded JSON value has the shape that is written: a list of objects, or an empty one."""
    return type(value) is list and (not value or any(type(item) is dict for item in value))


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the detections in ``body``, behind its last tag with any, into ``builder``."""
    return _read(body, builder, _Lists(BOX_KEYS, POINT_KEYS, builder.objects), list)


def read_gemini(body: str, builder: GraphBuilder) -> Reading:
    """The same with Gemini's key and order of coordinates."""
    lists = _Lists(GEMINI_KEYS, ("point",), builder.objects, needs_key=True)
    return _read(body, builder, lists, lambda box: [box[1], box[0], box[3], box[2]])


def _read(body: str, builder: GraphBuilder, lists: _Lists, to_xyxy: Callable[[list], list]) -> Reading:
    inner = unfence(body)
    if NONE.fullmatch(inner.strip("\"'")):
        return Reading(None, inner[:1] not in ("'", '"'))
    found, body = find_boxes(body, inner)
    damaged = found.broken or found.breaks_off
    tags = [] if found.alone else [tag.start() for tag in _TAG.finditer(body)]
    parts: list[tuple[int, list[_Element]]] = []  # (number of the tag before it, elements)
    unnamed: list[tuple[int, _Element]] = []  # boxes whose label is not known
    before, lost, heading, has_words = 0, "", None, any(map(str.isalpha, inner))
    for value, start, end in found.values:
        in_prose = body[start] == "(" and has_words  # such numbers may be anything
        if not (heading and _CONTINUES.fullmatch(body, before, start)):
            first = max(before, start - _LOOK_BACK)
            heading = label_under_key(body, first, start)
            heading = heading or heading_before(body, first, start, builder.objects, _NO_CLASSES)
            if heading is None and body[start] == "[":
                heading = label_behind(body, end)
            if heading is None and builder.only_label is not None and not in_prose:
                heading = other_heading(body, first, start, builder.only_label, _NO_CLASSES)
        label = heading[0] if heading else None if in_prose else builder.only_label
        elements = None if in_prose and label is None else lists.elements(value, start, label)
        if elements and heading:
            elements = [item if item.label_path else item._replace(label_span=heading[1]) for item in elements]
        before = max(end, heading[1][1]) if heading else end
        # Beside broken JSON, only a list with elements is believed: anything less may be a splinter of what is broken,
        # and could not parse must not become found nothing.
        if elements is not None and (not damaged or (elements and is_list(value))):
            parts.append((bisect(tags, start), elements))
        elif damaged and (elements or is_box(value) or is_boxes(value)):
            lost = lost or body[start:end]
        elif elements is None and not in_prose and (is_box(value) or is_boxes(value)):
            unnamed.append((bisect(tags, start), _Element(value, start)))
    last = max((number for number, _ in parts), default=-1)
    nones = [] if damaged or found.alone else _none_lines(body)
    if last < max((bisect(tags, start) for start in nones), default=-1):
        return Reading(None, False)
    if damaged and parts and (lost := lost or lost_box(body, found)):
        builder.drop("malformed_object", "text", lost)
    if not parts:
        is_prose = any(body[start] == "(" for _, start, _ in found.values)
        return Reading("invalid_json" if is_prose else found.failure, found.alone)
    merged = _merged([elements for number, elements in parts if number == last])
    if not any(element.label_path for element in merged):  # where names stand before boxes, one is missing
        merged += [element for number, element in unnamed if number == last]
    for where, element in builder.bounded(merged, "detections", MAX_OBJECTS):
        label = clean_label(element.label)
        if label is None or element.box_path is None:
            is_point = label is not None and type(element.raw) is dict and _is_point(element.raw, lists.point_keys)
            builder.drop("point" if is_point else "malformed_object", where, element.raw)
        else:
            builder.add_object(where, label, _numbers(element.box, to_xyxy), where, element.raw)
    alone = found.alone and is_list(found.values[0][0]) and all(map(lists.is_as_written, merged))
    return Reading(None, alone, objects=_places(body, merged, found.python))


def _none_lines(body: str) -> Iterator[int]:
    """Where lines begin that say None, perhaps of a class."""
    for line in _NONE_LINE.finditer(body):
        if line[1] is None or len(line[1].split()) <= MAX_WORDS:
            yield line.start()


def _numbers(box: object, to_xyxy: Callable[[list], list]) -> object:
    """The coordinates of a box in whichever form it is written; what is no box stays as it is."""
    if type(box) is dict:
        keys = corners(box)
        numbers = flat([box[key] for key in keys])
        if keys in SIZES and numbers:
            x, y, width, height = numbers
            return [x, y, x + width, y + height]
        return numbers or box
    numbers = flat(box)
    return to_xyxy(numbers) if numbers else box


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


def _places(body: str, elements: list[_Element], python: bool) -> Callable[[int], Place | None]:
    """Where the element of a number stands; its JSON value is gone through once."""
    spans: dict[int, object] = {}

    def place(number: int) -> Place | None:
        element = elements[number]
        if element.start not in spans:
            spans[element.start] = leaf_spans(body, element.start, python)
        value = spans[element.start]
        box = [leaf(value, *element.box_path, side) for side in element.sides]
        if None in box or len(box) != 4:
            return None
        path = element.label_path
        return Place(element.label_span if path is None else inside(body, value, *path), tuple(box))

    return place
