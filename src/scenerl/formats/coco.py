"""COCO's files, and OVDEval's, which are of the same schema: instances as ground truth, lists of results.

Instances: ``{"images": [{"id", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h],
"iscrowd"}], "categories": [{"id", "name"}]}``. Results: ``[{"image_id", "category_id", "bbox": [x, y, w, h],
"score"}]``. OVDEval's images also hold ``text`` and ``neg_text``, the labels that are asked for.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenerl.boxes import as_boxes, xyxy_to_xywh
from scenerl.data.rows import DataError, excerpt
from scenerl.formats.files import category_name, part, score_of, xywh_box
from scenerl.formats.predictions import Entry, Names, Predictions, tidy_id
from scenerl.formats.truth import Truth
from scenerl.json_files import read_json
from scenerl.runs import atomic_write_text
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject

EXPECTED = "COCO instances: a JSON object with images, annotations and categories"


def is_instances(value: object) -> bool:
    """Whether a JSON value looks like COCO's instances."""
    return isinstance(value, Mapping) and all(isinstance(value.get(key), list) for key in ("images", "categories"))


def truth(path: Path, value: object) -> Truth:
    """The ground truth in a file of COCO instances; crowd regions stand apart.

    Raises:
        DataError: it is not of the schema; the message names file and entry.
    """
    names = _category_names(part(value, "categories", list, str(path)), path)
    objects: dict[str, list[SceneObject]] = {}
    crowds: dict[str, list[SceneObject]] = defaultdict(list)
    images = part(value, "images", list, str(path))
    for n, image in enumerate(images):
        image_id = tidy_id(image.get("id")) if isinstance(image, Mapping) else None
        if image_id is None or image_id in objects:
            raise DataError(f"{path}: images[{n}] must be an object with an id of its own, found {excerpt(image)}")
        objects[image_id] = []
    for n, row in enumerate(part(value, "annotations", list, str(path))):
        where = f"{path}: annotations[{n}]"
        image_id = tidy_id(row.get("image_id")) if isinstance(row, Mapping) else None
        box = xywh_box(row.get("bbox")) if isinstance(row, Mapping) else None
        if image_id not in objects or box is None or row.get("category_id") not in names:
            raise DataError(
                f"{where} must name an image and a category of the file and have a bbox [x, y, width, height], found "
                f"{excerpt(row)}"
            )
        into = crowds if row.get("iscrowd") else objects
        into[image_id].append(SceneObject(names[row["category_id"]], box))
    examples = []
    for image in images:
        image_id = tidy_id(image["id"])
        found = tuple(objects[image_id])
        query = [*image.get("text", ()), *image.get("neg_text", ())] or sorted({entry.label for entry in found})
        width, height = (int(image.get(key) or 0) for key in ("width", "height"))
        examples.append(Example(image_id, width, height, SceneGraph(found), query=tuple(dict.fromkeys(query))))
    return Truth(examples, Names(names), {key: tuple(found) for key, found in crowds.items()})


def _category_names(categories: Sequence, path: Path) -> dict[int, str]:
    names = {}
    for n, row in enumerate(categories):
        where = f"{path}: categories[{n}]"
        names[part(row, "id", int, where)] = part(row, "name", str, where)
    twice = {name for name, number in Counter(names.values()).items() if number > 1}
    # Two categories of one name stay two.
    return {number: f"{name} #{number}" if name in twice else name for number, name in names.items()}


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
            predictions.note("unnamed_rows", where)
            continue
        box = xywh_box(row.get("bbox"))
        if box is None:
            predictions.note("bad_boxes", where)
            continue
        label = category_name(row.get("category_id"), names, predictions, where)
        found[image_id].append(SceneObject(label, box, score_of(row.get("score"), predictions, where)))
    for image_id, objects in found.items():
        predictions.add(
            image_id, Entry(f"{path}, image {image_id}", result=ParseResult("ok", SceneGraph(tuple(objects))))
        )
    return predictions.close()


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
    annotations, found = [], []
    for image, (example, result) in enumerate(zip(examples, results, strict=True), start=1):
        for entry, box in zip(example.graph.objects, _xywh(example.graph), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": number[entry.label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        graph = result.graph or SceneGraph()
        for place, (entry, box) in enumerate(zip(graph.objects, _xywh(graph), strict=True)):
            score = 1.0 - place / (len(graph.objects) + 1) if entry.score is None else max(entry.score, 0.0)
            found.append({"image_id": image, "category_id": number[entry.label], "bbox": box, "score": score})
    instances = {
        "info": {"description": "written by scenerl eval"},
        "images": [
            {"id": n, "file_name": example.image_id, "width": example.width, "height": example.height}
            for n, example in enumerate(examples, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": label} for label, n in number.items()],
    }
    beside = path.with_name(f"{path.stem}_instances.json")
    atomic_write_text(beside, json.dumps(instances))
    atomic_write_text(path, json.dumps(found))
    return beside


def _xywh(graph: SceneGraph) -> list[list[float]]:
    return xyxy_to_xywh(as_boxes([entry.box for entry in graph.objects])).tolist()
