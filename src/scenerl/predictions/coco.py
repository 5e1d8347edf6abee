"""COCO's results, and OVDEval's, which have the same schema; the instances are in :mod:`scenerl.data.instances`.

``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]``. An entry may name its category itself, as
``category_name`` or with a text as ``category_id``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.instances import instances_json, tidy_id, xywh, xywh_box
from scenerl.data.records import excerpt
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
        label = names.objects.get(number) if type(number) is int else _own_name(row)
        if label is None:
            label = _own_name(row) or category_name(number, names, f"entry {n}", notes)
        if type(score) is not float or not LAST < score < -LAST:
            score = decode_score(score, f"entry {n}", notes)
        found[image_id].append(SceneObject(label, box, score))
    return found


def _own_name(row: Mapping) -> str | None:
    """The name that an entry states itself: ``category_name``, or a text as its category."""
    values = (row.get(key) for key in ("category_name", "category", "category_id"))
    return next((" ".join(value.split()) for value in values if type(value) is str and value.strip()), None)


def encode(examples: Sequence[Example], results: Sequence[ParseResult]) -> tuple[dict, list]:
    """The ground truth as COCO instances, and predictions as COCO results.

    Image and category ids are numbers counted from 1; ``file_name`` holds our image id. Detections without a score get
    falling scores in the order of emission, as COCO needs some.
    """
    graphs = [result.graph or SceneGraph() for result in results]
    targets = {item.label for example in examples for item in (*example.graph.objects, *example.crowds)}
    others = {item.label for graph in graphs for item in graph.objects} - targets
    number = {label: n for n, label in enumerate([*sorted(targets), *sorted(others)], start=1)}
    images = [
        {"id": n, "file_name": example.image_id, "width": example.width, "height": example.height}
        for n, example in enumerate(examples, start=1)
    ]
    found = []
    for image, graph in zip(images, graphs, strict=True):
        for place, (entry, box) in enumerate(zip(graph.objects, xywh(graph.objects), strict=True)):
            score = 1.0 - place / (len(graph.objects) + 1) if entry.score is None else max(entry.score, 0.0)
            row = {"image_id": image["id"], "category_id": number[entry.label], "bbox": box, "score": score}
            found.append(row)
    crowds = [example.crowds for example in examples]
    instances = instances_json(images, [example.graph for example in examples], number, crowds)
    return instances, found
