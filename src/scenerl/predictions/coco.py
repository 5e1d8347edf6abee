"""COCO's files, and OVDEval's, which are of the same schema: instances as ground truth, lists of results.

Instances: ``{"images": [{"id", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h],
"iscrowd"}], "categories": [{"id", "name"}]}``. Results: ``[{"image_id", "category_id", "bbox": [x, y, w, h],
"score"}]``. OVDEval's images also hold ``text`` and ``neg_text``, the labels that are asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.instances import instances_json, tidy_id, xywh, xywh_box
from scenerl.data.records import excerpt
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.json_files import read_json
from scenerl.predictions.contents import Predictions, RawPrediction
from scenerl.predictions.fields import category_name
from scenerl.predictions.row import decode_score
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject


def read(path: Path, names: Names) -> Predictions:
    """A file of COCO results. Images without a result are images without a detection, not failed answers.

    Raises:
        DataError: the file is not a list of results.
    """
    value = read_json(path, "COCO results: a JSON list")
    if not isinstance(value, list):
        raise DataError(f"{path}: expected COCO results, a JSON list, found {excerpt(value)}")
    predictions = Predictions(path)
    found: dict[str, list[SceneObject]] = defaultdict(list)
    for n, row in enumerate(value):
        where = f"entry {n}"
        image_id = tidy_id(row.get("image_id")) if isinstance(row, Mapping) else None
        if image_id is None:
            predictions.notes.add("unnamed_rows", where)
            continue
        box = xywh_box(row.get("bbox"))
        if box is None:
            predictions.notes.add("bad_boxes", where)
            continue
        label = category_name(row.get("category_id"), names, where, predictions.notes)
        found[image_id].append(SceneObject(label, box, decode_score(row.get("score"), where, predictions.notes)))
    for image_id, objects in found.items():
        predictions.add(
            image_id, RawPrediction(f"{path}, image {image_id}", result=ParseResult("ok", SceneGraph(tuple(objects))))
        )
    return predictions.require_some()


def write(path: Path, examples: Sequence[Example], results: Sequence[ParseResult]) -> Path:
    """Write predictions as COCO results, and the ground truth beside them as ``<name>_instances.json``.

    Image and category ids are numbers counted from 1; ``file_name`` holds our image id. Detections without a score get
    falling scores in the order of emission, as COCO needs some.

    Returns:
        The path of the instances.
    """
    labels = sorted({entry.label for example in examples for entry in example.graph.objects})
    labels += sorted(
        {entry.label for result in results if result.graph for entry in result.graph.objects} - set(labels)
    )
    number = {label: n for n, label in enumerate(labels, start=1)}
    images = [
        {"id": n, "file_name": example.image_id, "width": example.width, "height": example.height}
        for n, example in enumerate(examples, start=1)
    ]
    found = []
    for image, result in zip(images, results, strict=True):
        graph = result.graph or SceneGraph()
        for place, (entry, box) in enumerate(zip(graph.objects, xywh(graph.objects), strict=True)):
            score = 1.0 - place / (len(graph.objects) + 1) if entry.score is None else max(entry.score, 0.0)
            row = {"image_id": image["id"], "category_id": number[entry.label], "bbox": box, "score": score}
            found.append(row)
    instances = instances_json(images, [example.graph for example in examples], number)
    atomic_write_text(beside(path), json.dumps(instances))
    atomic_write_text(path, json.dumps(found))
    return beside(path)


def beside(path: Path) -> Path:
    """Where :func:`write` puts the ground truth."""
    return path.with_name(f"{path.stem}_instances.json")
