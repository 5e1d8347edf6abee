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

from scenerl.data.instances import EXPECTED as EXPECTED
from scenerl.data.instances import KEYS as KEYS
from scenerl.data.instances import gather, instances_json, xywh
from scenerl.data.rows import excerpt
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.json_files import iter_lists, read_json
from scenerl.predictions.contents import Names, Predictions, RawPrediction, tidy_id
from scenerl.predictions.fields import category_name, side, xywh_box
from scenerl.predictions.row import decode_score
from scenerl.predictions.truth import Truth
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject


def truth(path: Path) -> Truth:
    """The ground truth in a file of COCO instances, streamed; crowd regions stand apart.

    Raises:
        DataError: it is not of the schema; the message names file and entry.
    """
    instances = gather(path, iter_lists(path, KEYS, EXPECTED))
    if problem := next((found for listed in instances.problems.values() for found in listed), None):
        raise DataError(f"{path}: {problem}")
    examples, crowds = [], {}
    for image_id, image in instances.images.items():
        objects, around = [], []
        for annotation in instances.annotations.of(image_id):
            found = SceneObject(instances.names[annotation.category], annotation.box)
            (around if annotation.crowd else objects).append(found)
        if around:
            crowds[image_id] = tuple(around)
        query = [*image.get("text", ()), *image.get("neg_text", ())] or sorted({entry.label for entry in objects})
        width, height = (side(image.get(key), f"{path}: image {image_id}: {key}") for key in ("width", "height"))
        graph = SceneGraph(tuple(objects))
        examples.append(Example(image_id, width, height, graph, query=tuple(dict.fromkeys(query))))
    return Truth(examples, Names(instances.names), crowds)


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
        for place, (entry, box) in enumerate(zip(graph.objects, xywh(graph), strict=True)):
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
