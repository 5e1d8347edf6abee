"""COCO's results, and OVDEval's, which have the same schema; the instances are in :mod:`scenerl.data.instances`.

``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]``
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.data.ground_truth import Names
from scenerl.data.instances import instances_json, tidy_id, xywh, xywh_box
from scenerl.errors import DataError
from scenerl.json_files import collector_paused, read_json
from scenerl.predictions.contents import Predictions, RawPrediction, category_name
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import LAST, decode_score
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject


def read(path: Path, names: Names) -> Predictions:
    """A file of COCO results. Images without a result are images without a detection, not failed answers."""
    with collector_paused():
        value = read_json(path, "COCO results: a JSON list")
        if not isinstance(value, list):
            raise DataError(f"{path}: expected COCO results, a JSON list, found {excerpt(value)}")
        predictions = Predictions(path)
        for image_id, objects in _objects_by_image(value, names, predictions.notes).items():
            result = ParseResult("ok", SceneGraph(tuple(objects)))
            predictions.add(image_id, RawPrediction(f"{path}, image {image_id}", result=result))
        del value  # its parts are not gone through when the collector runs again
    return predictions.require_some()


def _objects_by_image(rows: list, names: Names, notes: Notes) -> dict[str, list[SceneObject]]:
    found: dict[str, list[SceneObject]] = defaultdict(list)
    for n, row in enumerate(rows):
        image_id = tidy_id(row.get("image_id")) if type(row) is dict else None
        if image_id is None:
            notes.add("unnamed_rows", f"entry {n}")
            continue
        box = xywh_box(row.get("bbox"))
        if box is None:
            notes.add("bad_boxes", f"entry {n}")
            continue
        number, score = row.get("category_id"), row.get("score")
        label = names.objects.get(number) if type(number) is int else None
        if label is None:
            label = category_name(number, names, f"entry {n}", notes)
        if type(score) is not float or not LAST < score < -LAST:
            score = decode_score(score, f"entry {n}", notes)
        found[image_id].append(SceneObject(label, box, score))
    return found


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
