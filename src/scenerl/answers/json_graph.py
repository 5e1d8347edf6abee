"""The ``json`` format: a scene graph as R1-SGG writes it.

``{"objects": [{"id": "person.1", "bbox": [x1, y1, x2, y2]}], "relationships": [{"subject": "person.1", "predicate":
"riding", "object": "bike.2"}]}``. The label is the id up to its last dot-number. Ids are compared literally.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from scenerl.answers.elements import (
    MAX_OBJECTS,
    MAX_RELATIONS,
    GraphBuilder,
    Reading,
    clean_label,
    label_of,
    object_ids,
)
from scenerl.answers.json_text import find_answer
from scenerl.answers.template import unfence

INSTRUCTION = """\
Name every object and every relation between two objects in this image as one JSON value, shaped like this:
{{"objects": [{{"id": "dog.1", "bbox": [x1, y1, x2, y2]}}, {{"id": "ball.2", "bbox": [x1, y1, x2, y2]}}], \
"relationships": [{{"subject": "dog.1", "predicate": "chasing", "object": "ball.2"}}]}}
An id is the label, a dot and the object's number. Boxes are left, top, right, bottom {unit}."""


def write(labels: Sequence[str], boxes: Sequence[list], relations: Sequence[tuple[int, str, int]]) -> str:
    """The answer's text; ``boxes`` are in the answer's box format, relations hold object indices."""
    ids = object_ids(labels)
    graph = {
        "objects": [{"id": id_, "bbox": box} for id_, box in zip(ids, boxes, strict=True)],
        "relationships": [{"subject": ids[s], "predicate": name, "object": ids[o]} for s, name, o in relations],
    }
    return json.dumps(graph, ensure_ascii=False)


def is_answer(value: object) -> bool:
    """Whether a decoded JSON value has the shape of an answer."""
    return isinstance(value, dict) and all(isinstance(value.get(key), list) for key in ("objects", "relationships"))


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the objects and relations of the last complete graph in ``body`` into ``builder``."""
    graph, reading = find_answer(body, unfence(body), is_answer)
    if reading.failure:
        return reading
    for where, raw in builder.bounded(graph["objects"], "objects", MAX_OBJECTS):
        id_ = raw.get("id") if type(raw) is dict else None
        label = clean_label(label_of(id_.strip())) if type(id_) is str else None
        if label is None or "bbox" not in raw:
            if type(id_) is str:
                builder.claim(id_)
            builder.drop("malformed_object", where, raw)
        else:
            builder.add_object(id_, label, raw["bbox"], where, raw)
    for where, raw in builder.bounded(graph["relationships"], "relationships", MAX_RELATIONS):
        entry = raw if type(raw) is dict else {}
        subject, predicate, object_ = entry.get("subject"), clean_label(entry.get("predicate")), entry.get("object")
        if type(subject) is not str or type(object_) is not str or predicate is None:
            builder.drop("malformed_relation", where, raw)
        else:
            builder.add_relation(subject, predicate, object_, where, raw)
    return reading
