"""One row of our JSONL to one example and back.

A row is a dict::

    {"image_id": "1", "file_name": "1.jpg", "width": 640, "height": 480,
     "objects": [{"id": "person.1", "bbox": [x1, y1, x2, y2]}, ...],
     "relationships": [{"subject": "person.1", "predicate": "riding", "object": "bike.2"}, ...]}

or, for detection, ``"detections": [{"label": "person", "bbox_2d": [...]}]`` with ``"query": ["person", "dog"]`` instead
of objects and relationships, and perhaps ``"crowds"``, entries like those of ``detections``, or ``"referring": true``
where the query is one sentence about the one detection. Boxes are xyxy in pixels.
Keys that are not named here are ignored. The checks are those of :mod:`scenerl.data.records`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from scenerl.answers.elements import excerpt, label_of, object_ids
from scenerl.data.records import Checks, Record, kind_of
from scenerl.types import Box, Example, Relation, SceneGraph, SceneObject

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")  # what no file name can hold
_OBJECT_KEYS = frozenset(("id", "bbox"))
_DETECTION_KEYS = frozenset(("label", "bbox_2d"))
_RELATION_KEYS = frozenset(("subject", "predicate", "object"))
_ROW_KEYS = frozenset(("image_id", "file_name", "width", "height", "objects", "relationships", "detections", "query"))
_KEYS = _OBJECT_KEYS | _DETECTION_KEYS | _RELATION_KEYS | _ROW_KEYS


def read_row(row: object, where: str, images_dir: Path | None = None) -> Record:
    """A data row as a record, with all of its errors.

    Args:
        row: the decoded JSON value.
        where: names file and row in messages, for example ``rows.jsonl, row 3``.
        images_dir: folder that a relative ``file_name`` is taken from. Without it only absolute file names give an
            image. Whether the file exists is not looked at here.
    """
    reader = _RowReader()
    example = reader.read(row, images_dir)
    return Record(where, None if reader.errors else example, tuple(reader.errors), tuple(reader.warnings))


class _RowReader(Checks):
    """Walks through one row of our JSONL."""

    def read(self, row: object, images_dir: Path | None) -> Example | None:
        if not isinstance(row, Mapping):
            self.errors.append(f"a row must be a JSON object, found {kind_of(row)}: {excerpt(row)}")
            return None
        is_detection = "detections" in row
        if is_detection and "objects" in row:
            self.errors.append("a row holds 'objects' (scene graph) or 'detections', not both")
            return None
        needed = ("detections",) if is_detection else ("objects", "relationships")
        for key in ("image_id", "width", "height", *needed):
            if key not in row:
                hint = "; a detection row has 'detections' instead" if key == "objects" else ""
                hint = _instead(key, row) or hint
                self.errors.append(f"the key {key!r} is missing{hint}")
        if self.errors:
            return None
        image_id = self.image_id(row["image_id"])
        self.width = self.side(row["width"], "width")
        self.height = self.side(row["height"], "height")
        image = self._image(row.get("file_name"), images_dir)
        crowds: list[SceneObject] = []
        referring = row.get("referring", False)
        if is_detection:
            objects, relations = self._detections(row["detections"], "detections"), []
            query = self._query(row.get("query"), objects)
            crowds = self._detections(row.get("crowds", []), "crowds")
        else:
            objects, index = self._objects(row["objects"])
            relations, query = self._relations(row["relationships"], index), None
        if referring not in (True, False) or (referring and not (query and len(query) == len(objects) == 1)):
            self.errors.append("referring must be true or false; true needs one label in query and one detection")
        if self.errors:
            return None
        graph = SceneGraph(tuple(objects), tuple(relations))
        return Example(
            image_id, self.width, self.height, graph, image, query, crowds=tuple(crowds), referring=bool(referring)
        )

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

    def _list(self, value: object, name: str) -> list:
        if isinstance(value, list):
            return value
        self.errors.append(f"{name} must be a list, found {kind_of(value)} {excerpt(value)}")
        return []

    def _objects(self, value: object) -> tuple[list[SceneObject], dict[str, int]]:
        objects: list[SceneObject] = []
        index: dict[str, int] = {}
        for n, item in enumerate(self._list(value, "objects")):
            if not self._has_keys(item, _OBJECT_KEYS, "objects", n):
                continue
            object_id = self.text(item["id"], "the id of objects", n)
            if object_id in index:
                self.errors.append(f"two objects have the id {excerpt(object_id)}; ids must differ")
                continue
            # Also for an object with a bad box, so that relations to it are not reported as well.
            index[object_id] = len(objects)
            label = label_of(object_id).rstrip()
            if object_id and not label:
                self.errors.append(f"the id of objects[{n}] has no label before its number: {excerpt(object_id)}")
            objects.append(SceneObject(label, self.box(item["bbox"], "objects", n, object_id)))
        return objects, index

    def _detections(self, value: object, name: str) -> list[SceneObject]:
        return [
            self.element(item["label"], item["bbox_2d"], name, n)
            for n, item in enumerate(self._list(value, name))
            if self._has_keys(item, _DETECTION_KEYS, name, n)
        ]

    def _query(self, value: object, objects: list[SceneObject]) -> tuple[str, ...]:
        if value is None:
            self.warnings.append("a detection row without 'query': it becomes the labels of its boxes, no absent ones")
            return tuple(dict.fromkeys(found.label for found in objects))
        return self.query(self._list(value, "query"), objects)

    def _relations(self, value: object, index: dict[str, int]) -> list[Relation]:
        relations: dict[tuple[int, str, int], Relation] = {}
        for n, item in enumerate(self._list(value, "relationships")):
            if not self._has_keys(item, _RELATION_KEYS, "relationships", n):
                continue
            predicate = self.text(item["predicate"], "the predicate of relationships", n)
            subject, object_ = self._end(item, "subject", n, index), self._end(item, "object", n, index)
            if subject is not None and object_ is not None:
                self.relation(relations, (subject, predicate, object_), n, item["subject"])
        return list(relations.values())

    def _end(self, item: Mapping, role: str, n: int, index: dict[str, int]) -> int | None:
        """The object index of a relation's subject or object."""
        if isinstance(item[role], str) and item[role] in index:
            return index[item[role]]
        end_id = self.text(item[role], f"the {role} of relationships", n)
        if end_id and end_id not in index:
            self.errors.append(f"the {role} of relationships[{n}] is {excerpt(end_id)}, but no object has this id")
        return index.get(end_id)

    def _has_keys(self, item: object, keys: frozenset[str], name: str, n: int) -> bool:
        if type(item) is dict and keys <= item.keys():
            return True
        if isinstance(item, Mapping):
            missing = ", ".join(f"{key!r}{_instead(key, item)}" for key in sorted(keys - item.keys()))
            self.errors.append(f"{name}[{n}] lacks {missing}; it has {excerpt(list(item))}")
        else:
            self.errors.append(f"{name}[{n}] must be a JSON object, found {kind_of(item)} {excerpt(item)}")
        return False


def _instead(key: str, row: Mapping) -> str:
    """The key that was probably meant to be ``key``, for the end of a message."""
    close = get_close_matches(key, [other for other in row if isinstance(other, str) and other not in _KEYS], 1)
    return f" (is it {close[0]!r}?)" if close else ""


def example_to_row(example: Example, file_name: str | None = None) -> dict:
    """The data row of an example, the inverse of :func:`read_row`; object ids are ``label.N``, counted from 1.

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
        if example.referring:
            row["referring"] = True
        for key, elements in (("detections", objects), ("crowds", example.crowds)):
            if elements or key == "detections":
                row[key] = [{"label": found.label, "bbox_2d": _plain(found.box)} for found in elements]
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
