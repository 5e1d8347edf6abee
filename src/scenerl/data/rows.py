"""One data row to one example and back, with every check of a row in one place.

A row is the dict that our JSONL holds, and that the other data sets are turned into::

    {"image_id": "1", "file_name": "1.jpg", "width": 640, "height": 480,
     "objects": [{"id": "person.1", "bbox": [x1, y1, x2, y2]}, ...],
     "relationships": [{"subject": "person.1", "predicate": "riding", "object": "bike.2"}, ...]}

or, for detection, ``"detections": [{"label": "person", "bbox_2d": [...]}]`` with ``"query": ["person", "dog"]`` instead
of objects and relationships. Boxes are xyxy in pixels. Keys that are not named here are ignored.

What cannot be meant is an error (a box that is not four finite numbers, a relation to nothing). What work can go on
with is mended and comes back as a warning: a box that leaves its image is clipped; repeated relations and relations of
an object to itself, both common in Visual Genome, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scenerl.answers.elements import MAX_LABEL, clean_label, label_of, object_ids
from scenerl.answers.template import TAGS
from scenerl.errors import DataError
from scenerl.types import Box, Example, Relation, SceneGraph, SceneObject

MAX_SIDE = 1_000_000
"""Largest width or height a row may state, in pixels."""

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")  # what no file name can hold
_OBJECT_KEYS = frozenset(("id", "bbox"))
_DETECTION_KEYS = frozenset(("label", "bbox_2d"))
_RELATION_KEYS = frozenset(("subject", "predicate", "object"))
_FAR = 1e12  # no coordinate is this large; comparing with it also catches NaN, infinities and endless integers


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set as a reader hands it on: where it stands and the example, or what is wrong with it.

    ``example`` is None exactly when there are ``errors``. Messages do not repeat ``where``.
    """

    where: str
    example: Example | None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def unwrap(self) -> Example:
        """The example.

        Raises:
            DataError: the row has errors; the message holds the first and the number of the others.
        """
        if self.example is None:
            more = f" (and {len(self.errors) - 1} more in this row)" if len(self.errors) > 1 else ""
            raise DataError(f"{self.where}: {self.errors[0]}{more}")
        return self.example


def excerpt(value: object, limit: int = 80) -> str:
    """A bounded ``repr`` for messages."""
    # Cut before repr: a value from a file may be large.
    try:
        text = repr(value[:limit] if isinstance(value, str | bytes | list) else value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def parse_row(row: object, where: str, images_dir: Path | None = None) -> tuple[Example, list[str]]:
    """A data row as an example.

    Args:
        row: the decoded JSON value.
        where: names file and row in messages, for example ``rows.jsonl, row 3``.
        images_dir: folder that a relative ``file_name`` is taken from. Without it only absolute file names give an
            image. Whether the file exists is not looked at here.

    Returns:
        The example and the warnings of this row, which start with ``where``.

    Raises:
        DataError: the row cannot be used.
    """
    record = read_row(row, where, images_dir)
    return record.unwrap(), [f"{where}: {warning}" for warning in record.warnings]


def read_row(row: object, where: str, images_dir: Path | None = None) -> Record:
    """As :func:`parse_row`, but never raises: all errors of the row are collected in the record."""
    reader = _RowReader()
    example = reader.read(row, images_dir)
    return Record(where, None if reader.errors else example, tuple(reader.errors), tuple(reader.warnings))


class _RowReader:
    """Walks through one row and collects what is wrong with it."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.width = 0
        self.height = 0

    def read(self, row: object, images_dir: Path | None) -> Example | None:
        if not isinstance(row, Mapping):
            self.errors.append(f"a row must be a JSON object, found {_kind(row)}: {excerpt(row)}")
            return None
        is_detection = "detections" in row
        if is_detection and "objects" in row:
            self.errors.append("a row holds 'objects' (scene graph) or 'detections', not both")
            return None
        needed = ("detections",) if is_detection else ("objects", "relationships")
        for key in ("image_id", "width", "height", *needed):
            if key not in row:
                hint = "; a detection row has 'detections' instead" if key == "objects" else ""
                self.errors.append(f"the key {key!r} is missing{hint}")
        if self.errors:
            return None
        image_id = self._image_id(row["image_id"])
        self.width = self._side(row["width"], "width")
        self.height = self._side(row["height"], "height")
        image = self._image(row.get("file_name"), images_dir)
        if is_detection:
            objects, relations = self._detections(row["detections"]), []
            query = self._query(row.get("query"), objects)
        else:
            objects, index = self._objects(row["objects"])
            relations, query = self._relations(row["relationships"], index), None
        if self.errors:
            return None
        graph = SceneGraph(tuple(objects), tuple(relations))
        return Example(image_id, self.width, self.height, graph, image, query)

    def _image_id(self, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self._text(value, "image_id")

    def _side(self, value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_SIDE or value % 1:
            self.errors.append(f"{name} must be a whole number of pixels from 1 to {MAX_SIDE}, found {excerpt(value)}")
            return 0
        return int(value)

    def _image(self, value: object, images_dir: Path | None) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value or _UNWRITABLE.search(value):
            self.errors.append(f"file_name must be the name of an image file, found {excerpt(value)}")
            return None
        path = Path(value)
        if path.is_absolute():
            return path
        return images_dir / path if images_dir is not None else None

    def _text(self, value: object, name: str, n: int | None = None) -> str:
        """A label, predicate or id: white space is tidied, and what no answer could hold is refused.

        ``name`` and ``n`` say in messages what the text is; they are put together only when there is something to say,
        because scoring reads many rows.
        """
        if isinstance(value, str):
            text = clean_label(" ".join(value.split()))
            if text is not None and not ("<" in text and any(tag in text for tag in TAGS)):
                return text
        place = name if n is None else f"{name}[{n}]"
        self.errors.append(
            f"{place} must be a text of 1 to {MAX_LABEL} characters without control characters, lone surrogates or the "
            f"tags {' '.join(TAGS)}, found {_kind(value)} {excerpt(value)}"
        )
        return ""

    def _list(self, value: object, name: str) -> list:
        if isinstance(value, list):
            return value
        self.errors.append(f"{name} must be a list, found {_kind(value)} {excerpt(value)}")
        return []

    def _objects(self, value: object) -> tuple[list[SceneObject], dict[str, int]]:
        objects: list[SceneObject] = []
        index: dict[str, int] = {}
        for n, item in enumerate(self._list(value, "objects")):
            if not self._has_keys(item, _OBJECT_KEYS, "objects", n):
                continue
            object_id = self._text(item["id"], "the id of objects", n)
            if object_id in index:
                self.errors.append(f"two objects have the id {excerpt(object_id)}; ids must differ")
                continue
            # Also for an object with a bad box, so that relations to it are not reported as well.
            index[object_id] = len(objects)
            label = label_of(object_id).rstrip()
            if object_id and not label:
                self.errors.append(f"the id of objects[{n}] has no label before its number: {excerpt(object_id)}")
            objects.append(SceneObject(label, self._box(item["bbox"], "objects", n, object_id)))
        return objects, index

    def _detections(self, value: object) -> list[SceneObject]:
        objects = []
        for n, item in enumerate(self._list(value, "detections")):
            if self._has_keys(item, _DETECTION_KEYS, "detections", n):
                label = self._text(item["label"], "the label of detections", n)
                objects.append(SceneObject(label, self._box(item["bbox_2d"], "detections", n, label)))
        return objects

    def _query(self, value: object, objects: list[SceneObject]) -> tuple[str, ...]:
        if value is None:
            self.warnings.append(
                "a detection row without 'query': the labels found in it are asked for, absent ones are not"
            )
            return tuple(dict.fromkeys(found.label for found in objects))
        query = tuple(self._text(label, "query", n) for n, label in enumerate(self._list(value, "query")))
        if len(set(query)) < len(query):
            self.errors.append(f"query names a label twice: {excerpt(list(query))}")
        if unasked := sorted({found.label for found in objects} - set(query)):
            self.errors.append(f"labels in detections that query does not ask for: {excerpt(unasked)}")
        return query

    def _relations(self, value: object, index: dict[str, int]) -> list[Relation]:
        relations: dict[tuple[int, str, int], Relation] = {}
        for n, item in enumerate(self._list(value, "relationships")):
            if not self._has_keys(item, _RELATION_KEYS, "relationships", n):
                continue
            predicate = self._text(item["predicate"], "the predicate of relationships", n)
            subject_, object_ = self._end(item, "subject", n, index), self._end(item, "object", n, index)
            if subject_ is None or object_ is None:
                continue
            key = (subject_, predicate, object_)
            if subject_ == object_:
                self.warnings.append(f"relationships[{n}] relates {excerpt(item['subject'])} to itself: left out")
            elif key in relations:
                self.warnings.append(f"relationships[{n}] repeats an earlier relation ({excerpt(predicate)}): left out")
            else:
                relations[key] = Relation(*key)
        return list(relations.values())

    def _end(self, item: Mapping, role: str, n: int, index: dict[str, int]) -> int | None:
        """The object index of a relation's subject or object."""
        if isinstance(item[role], str) and item[role] in index:
            return index[item[role]]
        end_id = self._text(item[role], f"the {role} of relationships", n)
        if end_id and end_id not in index:
            self.errors.append(f"the {role} of relationships[{n}] is {excerpt(end_id)}, but no object has this id")
        return index.get(end_id)

    def _has_keys(self, item: object, keys: frozenset[str], name: str, n: int) -> bool:
        if type(item) is dict and keys <= item.keys():
            return True
        if isinstance(item, Mapping):
            missing = ", ".join(repr(key) for key in sorted(keys - item.keys()))
            self.errors.append(f"{name}[{n}] lacks {missing}; it has {excerpt(list(item))}")
        else:
            self.errors.append(f"{name}[{n}] must be a JSON object, found {_kind(item)} {excerpt(item)}")
        return False

    def _box(self, value: object, name: str, n: int, label: str) -> Box:
        """A box inside the image; on an error any box, since the row is refused then."""
        box = _four_finite(value)
        if box is not None:
            x1, y1, x2, y2 = box
            if 0 <= x1 < x2 <= self.width and 0 <= y1 < y2 <= self.height:
                return box
        place = f"the box of {name}[{n}] ({excerpt(label)})"
        if box is None:
            self.errors.append(f"{place} must be four finite numbers [x1, y1, x2, y2], found {excerpt(value)}")
            return 0.0, 0.0, 0.0, 0.0
        if x1 >= x2 or y1 >= y2:
            self.errors.append(f"{place} must have x1 < x2 and y1 < y2, found {excerpt(value)}")
            return box
        if not (self.width and self.height):  # the size is an error of its own
            return box
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(self.width)), min(y2, float(self.height))
        size = f"the image ({self.width} x {self.height})"
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self.errors.append(f"{place} lies outside {size}: {excerpt(value)}")
        else:
            self.warnings.append(f"{place} leaves {size} and was clipped: {excerpt(value)}")
        return inside


def _four_finite(value: object) -> Box | None:
    """Four numbers that are not truth values; coordinates beyond any image count as infinite."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    for number in value:
        if type(number) is not int and type(number) is not float or not -_FAR < number < _FAR:
            return None
    return float(value[0]), float(value[1]), float(value[2]), float(value[3])


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def example_to_row(example: Example, file_name: str | None = None) -> dict:
    """The data row of an example, the inverse of :func:`parse_row`; object ids are ``label.N``, counted from 1.

    Args:
        example: detection examples (those with a ``query``) become detection rows.
        file_name: goes into the row; without it the example's own path does, if its image is one.
    """
    if file_name is None and isinstance(example.image, Path):
        file_name = str(example.image)
    row: dict = {"image_id": example.image_id}
    if file_name is not None:
        row["file_name"] = file_name
    row |= {"width": example.width, "height": example.height}
    objects = example.graph.objects
    if example.query is not None:
        row["query"] = list(example.query)
        row["detections"] = [{"label": found.label, "bbox_2d": _plain(found.box)} for found in objects]
        return row
    ids = object_ids(found.label for found in objects)
    row["objects"] = [
        {"id": object_id, "bbox": _plain(found.box)} for object_id, found in zip(ids, objects, strict=True)
    ]
    row["relationships"] = [
        {"subject": ids[relation.subject], "predicate": relation.predicate, "object": ids[relation.object]}
        for relation in example.graph.relations
    ]
    return row


def _plain(box: Box) -> list[int | float]:
    """Whole coordinates without a decimal point."""
    return [int(number) if float(number).is_integer() else float(number) for number in box]
