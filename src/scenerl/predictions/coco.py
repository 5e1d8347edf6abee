"""COCO's results, and OVDEval's, which have the same schema; the instances are in :mod:`scenerl.data.instances`.

``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]``. An entry may name its category itself, as
``category_name`` or with a text as ``category_id``; a text that is a number is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.ground_truth import Names
from scenerl.data.instances import find_category, instances_json, tidy_id, xywh, xywh_box
from scenerl.data.records import FAR
from scenerl.errors import DataError
from scenerl.json_files import collector_paused, read_json
from scenerl.predictions.contents import Predictions, RawPrediction, category_name
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import LAST, decode_score
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject

_COLUMNS = ("image_id", "category_id", "bbox", "score")


def read(path: Path, names: Names) -> Predictions:
    """A file of COCO results. Images without a result are images without a detection, not failed answers."""
    with collector_paused():
        value = read_json(path, "COCO results: a JSON list")
        if not isinstance(value, list):
            raise DataError(f"{path}: expected COCO results, a JSON list, found {excerpt(value)}")
        predictions = Predictions(path)
        by_image: dict[str | int, list[SceneObject]] = defaultdict(list)
        for image_id, found in _regular(value, names) or _checked(path, value, names, predictions.notes):
            by_image[image_id].append(found)
        for image_id, objects in by_image.items():
            result = ParseResult("ok", SceneGraph(tuple(objects)))
            predictions.add(str(image_id), RawPrediction(f"{path}, image {image_id}", result=result))
        del value  # its parts are not gone through when the collector runs again
    return predictions.require_some()


def _regular(rows: list, names: Names) -> Iterator[tuple[int, SceneObject]] | None:
    """Image and object of every row, column by column, which halves the time; None unless all rows are as detectors
    write them, with numbers in their places and known categories."""
    try:
        ids, categories, boxes, scores = ([row[key] for row in rows] for key in _COLUMNS)
        labels = list(map(names.objects.__getitem__, categories))
        if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
            return None
        sides = list(chain.from_iterable(boxes))
        columns = ((ids, {int}), (categories, {int}), (sides, {int, float}), (scores, {int, float}))
        if not all(types.issuperset(map(type, column)) for column, types in columns):
            return None
        box_N, score_N = np.array(sides, dtype=float).reshape(-1, 4), np.array(scores, dtype=float)
    except (KeyError, TypeError, OverflowError):
        return None
    if not (np.abs(box_N).max() < FAR and np.abs(score_N).max() < -LAST):  # nor are they where there is a NaN
        return None
    box_N[:, 2:] += box_N[:, :2]
    return zip(ids, map(SceneObject, labels, zip(*box_N.T.tolist(), strict=True), score_N.tolist()), strict=True)


def _checked(path: Path, rows: list, names: Names, notes: Notes) -> Iterator[tuple[str, SceneObject]]:
    """Image and object of every row that can be used; what is odd goes to the notes.

    Raises:
        DataError: a box or a score is NaN, which is a fault of the program that wrote all of them.
    """
    for n, row in enumerate(rows):
        image_id = tidy_id(row.get("image_id")) if type(row) is dict else None
        if image_id is None:
            notes.add("unnamed_rows", f"entry {n}")
            continue
        for key in ("bbox", "score"):
            value = row.get(key)
            if any(number != number for number in (value if type(value) is list else [value])):
                raise DataError(f"{path}: entry {n}: {key!r} must hold numbers, found NaN: {excerpt(value)}")
        box = xywh_box(row.get("bbox"))
        if box is None:
            notes.add("bad_boxes", f"entry {n}")
            continue
        category = row.get("category_id")
        found = find_category(category, names.objects, f"{path}: entry {n}")
        own = None if found in names.objects else _own_name(row)
        label = own or category_name(category if found is None else found, names, f"entry {n}", notes)
        yield image_id, SceneObject(label, box, decode_score(row.get("score"), f"entry {n}", notes))


def _own_name(row: Mapping) -> str | None:
    """The name that an entry states itself: ``category_name``, or a text as its category."""
    values = (row.get(key) for key in ("category_name", "category", "category_id"))
    return next((normal_text(value) for value in values if type(value) is str and value.strip()), None)


def encode(examples: Sequence[Example], results: Sequence[ParseResult]) -> tuple[dict, list]:
    """The ground truth as COCO instances (:func:`~scenerl.data.instances.instances_json`), and predictions as COCO
    results.

    ``file_name`` holds our image id. Detections without a score get 1, as in our own AP, which COCO's tools then find.
    """
    graphs = [result.graph or SceneGraph() for result in results]
    labels = (item.label for graph in graphs for item in graph.objects)
    instances = instances_json(examples, lambda example: example.image_id, labels)
    category = {entry["name"]: entry["id"] for entry in instances["categories"]}
    found = [
        {
            "image_id": image["id"],
            "category_id": category[item.label],
            "bbox": box,
            "score": 1.0 if item.score is None else item.score,
        }
        for image, graph in zip(instances["images"], graphs, strict=True)
        for item, box in zip(graph.objects, xywh(graph.objects), strict=True)
    ]
    return instances, found
