"""SGBench's predictions and OpenPSG's ground truth, which sgbench reads beside them.

Ground truth (psg.json): ``{"data": [{"image_id", "annotations": [{"bbox": [x1, y1, x2, y2], "category_id"}],
"relations": [[subject, object, predicate]]}], "thing_classes", "stuff_classes", "predicate_classes",
"test_image_ids"}``. Predictions: ``{"version": 1, "images": [{"id", "triplets": [[subject, object, predicate]],
"annotation": [{"category", "bbox"}]}]}``. Only boxes are read; masks are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenerl.data.psg import EXPECTED
from scenerl.data.rows import excerpt
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.json_files import iter_lists, read_json, read_members
from scenerl.predictions.contents import Names, Predictions, RawPrediction, tidy_id
from scenerl.predictions.fields import GraphBuilder, box_of, category_name, part, places, side
from scenerl.predictions.truth import Truth
from scenerl.types import Example, ParseResult, SceneGraph

VERSION = 1


def truth(path: Path) -> Truth:
    """The test images of a psg.json (all, where it names none), streamed.

    Unlike :func:`scenerl.data.psg.read`, which makes examples to train on, it needs no sizes of images and changes no
    box.

    Raises:
        DataError: it is not of the schema, or has no test image; the message names file and entry.
    """
    parts = read_members(path, ("thing_classes", "stuff_classes", "predicate_classes", "test_image_ids"), EXPECTED)
    classes = [*part(parts, "thing_classes", list, str(path)), *part(parts, "stuff_classes", list, str(path), [])]
    names = Names(dict(enumerate(classes)), tuple(part(parts, "predicate_classes", list, str(path))))
    wanted = None
    if parts.get("test_image_ids") is not None:
        wanted = {tidy_id(image_id) for image_id in part(parts, "test_image_ids", list, str(path))}
    examples = []
    for n, (_, row) in enumerate(iter_lists(path, ("data",), EXPECTED)):
        where = f"{path}: data[{n}]"
        image_id = tidy_id(row.get("image_id")) if isinstance(row, Mapping) else None
        if image_id is None:
            raise DataError(f"{where} must be an object with an image_id, found {excerpt(row)}")
        if wanted is not None and image_id not in wanted:
            continue
        graph = GraphBuilder()
        for m, entry in enumerate(part(row, "annotations", list, where)):
            box = box_of(entry.get("bbox")) if isinstance(entry, Mapping) else None
            number = entry.get("category_id") if isinstance(entry, Mapping) else None
            if box is None or type(number) is not int or number not in names.objects:
                raise DataError(f"{where}.annotations[{m}] must have a bbox and a known category_id")
            graph.add_object(m, names.objects[number], box)
        # A relation may stand there twice; each counts once.
        found = (
            places(entry, 3, f"{where}.relations[{m}]") for m, entry in enumerate(part(row, "relations", list, where))
        )
        for m, entry in enumerate(dict.fromkeys(found)):
            subject, object_, predicate = entry
            if not (subject in graph.place and object_ in graph.place and 0 <= predicate < len(names.predicates)):
                raise DataError(f"{where}.relations[{m}] names what is not there: {excerpt(entry)}")
            graph.add_relation(subject, names.predicates[predicate], object_)
        width, height = (side(row.get(key), f"{where}.{key}") for key in ("width", "height"))
        examples.append(Example(image_id, width, height, graph.graph()))
    if not examples:
        raise DataError(f"{path} has no test image (data, test_image_ids)")
    return Truth(examples, names)


def read(path: Path, names: Names) -> Predictions:
    """A file of SGBench predictions; ``triplets`` are ranked as listed.

    Raises:
        DataError: the file is not of the schema, or the ground truth has no names for its numbers.
    """
    value = read_json(path, "SGBench predictions: a JSON object with version and images")
    images = part(value, "images", list, str(path))
    if not names.objects or not names.predicates:
        raise DataError(f"{path}: SGBench predictions are numbers; their names come from --data psg.json")
    predictions = Predictions(path)
    for n, image in enumerate(images):
        where = f"{path}: images[{n}]"
        image_id = tidy_id(image.get("id")) if isinstance(image, Mapping) else None
        if image_id is None:
            predictions.notes.add("unnamed_rows", f"images[{n}]")
            continue
        graph = GraphBuilder()
        for m, entry in enumerate(part(image, "annotation", list, where)):
            box = box_of(entry.get("bbox")) if isinstance(entry, Mapping) else None
            if box is None:
                predictions.notes.add("bad_boxes", f"images[{n}].annotation[{m}]")
            else:
                graph.add_object(m, category_name(entry.get("category"), names, where, predictions.notes), box)
        for m, entry in enumerate(part(image, "triplets", list, where)):
            subject, object_, predicate = places(entry, 3, f"{where}.triplets[{m}]")
            if not 0 <= predicate < len(names.predicates):
                raise DataError(f"{where}.triplets[{m}]: predicate {predicate} is beyond the {len(names.predicates)}")
            if not graph.add_relation(subject, names.predicates[predicate], object_):
                predictions.notes.add("lost_relations", f"images[{n}].triplets[{m}]")
        predictions.add(image_id, RawPrediction(where, result=ParseResult("ok", graph.graph())))
    return predictions.require_some()


def write(path: Path, examples: Sequence[Example], results: Sequence[ParseResult]) -> Path:
    """Write predictions for sgbench, and the ground truth beside them as ``<name>_psg.json``.

    Failed answers are left out of the predictions, as sgbench expects of a missing image. It raises on an image without
    a relation, so answers that hold none are left out as well. Relations stand in the order of their rank.

    Returns:
        The path of the ground truth.
    """
    graphs = [result.graph or SceneGraph() for result in results]
    every = [*(example.graph for example in examples), *graphs]
    classes = sorted({entry.label for graph in every for entry in graph.objects})
    predicates = sorted({relation.predicate for graph in every for relation in graph.relations})
    class_of, predicate_of = ({name: n for n, name in enumerate(listed)} for listed in (classes, predicates))

    def triplets(graph: SceneGraph) -> list[list[int]]:
        ranked = sorted(graph.relations, key=lambda relation: -(1.0 if relation.score is None else relation.score))
        return [[entry.subject, entry.object, predicate_of[entry.predicate]] for entry in ranked]

    data = [
        {
            "image_id": example.image_id,
            "file_name": example.image_id,
            "width": example.width,
            "height": example.height,
            "annotations": [
                {"bbox": list(entry.box), "bbox_mode": 0, "category_id": class_of[entry.label]}
                for entry in example.graph.objects
            ],
            "relations": triplets(example.graph),
        }
        for example in examples
    ]
    annotations = {
        "data": data,
        "thing_classes": classes,
        "stuff_classes": [],
        "predicate_classes": predicates,
        "test_image_ids": [example.image_id for example in examples],
    }
    images = [
        {
            "id": example.image_id,
            "triplets": triplets(graph),
            "annotation": [{"category": class_of[entry.label], "bbox": list(entry.box)} for entry in graph.objects],
        }
        for example, graph in zip(examples, graphs, strict=True)
        if graph.relations
    ]
    atomic_write_text(beside(path), json.dumps(annotations))
    atomic_write_text(path, json.dumps({"version": VERSION, "images": images}))
    return beside(path)


def beside(path: Path) -> Path:
    """Where :func:`write` puts the ground truth."""
    return path.with_name(f"{path.stem}_psg.json")
