"""SGBench's predictions and OpenPSG's ground truth, which sgbench reads beside them.

Ground truth (psg.json): ``{"data": [{"image_id", "annotations": [{"bbox": [x1, y1, x2, y2], "category_id"}],
"relations": [[subject, object, predicate]]}], "thing_classes", "stuff_classes", "predicate_classes",
"test_image_ids"}``. Predictions: ``{"version": 1, "images": [{"id", "triplets": [[subject, object, predicate]],
"annotation": [{"category", "bbox"}]}]}``. Only boxes are read; masks are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id
from scenerl.data.records import four_finite
from scenerl.errors import DataError
from scenerl.json_files import read_json
from scenerl.predictions.contents import GraphBuilder, Predictions, RawPrediction, category_name, part, places
from scenerl.types import Example, ParseResult, SceneGraph

VERSION = 1


def read(path: Path, names: Names) -> Predictions:
    """A file of SGBench predictions; ``triplets`` are ranked as listed, and the ground truth names its numbers."""
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
            box = four_finite(entry.get("bbox")) if isinstance(entry, Mapping) else None
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


def encode(examples: Sequence[Example], results: Sequence[ParseResult]) -> tuple[dict, dict]:
    """The ground truth as psg.json, and predictions for sgbench.

    Failed answers are left out of the predictions, as sgbench expects of a missing image. It raises on an image without
    a relation, so answers that hold none are left out as well. Relations stand in the order of their rank.
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
    return annotations, {"version": VERSION, "images": images}
