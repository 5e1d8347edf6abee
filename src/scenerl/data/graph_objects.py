"""Scene graphs as objects of other Python packages: networkx, supervision, FiftyOne (extras `graphs` and `fiftyone`).

Each function imports its package when it is called. Files for graph stores: :mod:`scenerl.data.graph_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenerl.errors import UserError
from scenerl.extras import require
from scenerl.types import Example, SceneGraph

if TYPE_CHECKING:
    import fiftyone
    import networkx
    import supervision


def to_networkx(graph: SceneGraph) -> networkx.MultiDiGraph:
    """A scene graph as a directed multigraph.

    Nodes are the objects' places, counted from 0, with ``label``, ``box`` (x1, y1, x2, y2 in pixels) and ``score``;
    edges go from subject to object, with ``predicate`` and ``score``. A score that there is not is None.

    Raises:
        UserError: networkx is not installed.
    """
    made = require("networkx", "to_networkx").MultiDiGraph()
    for place, item in enumerate(graph.objects):
        made.add_node(place, label=item.label, box=tuple(item.box), score=item.score)
    for relation in graph.relations:
        made.add_edge(relation.subject, relation.object, predicate=relation.predicate, score=relation.score)
    return made


def to_supervision(graph: SceneGraph, labels: Sequence[str] | None = None) -> supervision.Detections:
    """The objects of a graph as supervision's ``Detections``: ``xyxy`` (N, 4) float32 in pixels, in their order.

    Args:
        labels: the classes; ``class_id`` is a label's place in them. Default: the graph's labels as they first appear.

    Returns:
        With ``data["class_name"]``; ``confidence`` is None unless every object has a score.

    Raises:
        UserError: a label that is not among ``labels``, or supervision is not installed.
    """
    detections = require("supervision", "to_supervision").Detections
    names = list(dict.fromkeys(item.label for item in graph.objects)) if labels is None else list(labels)
    ids = {name: place for place, name in enumerate(names)}
    if missing := [item.label for item in graph.objects if item.label not in ids]:
        raise UserError(f"label {missing[0]!r} is not among the {len(names)} given")
    scores = [item.score for item in graph.objects]
    has_scores = bool(scores) and None not in scores
    return detections(
        xyxy=np.array([item.box for item in graph.objects], dtype=np.float32).reshape(-1, 4),
        class_id=np.array([ids[item.label] for item in graph.objects], dtype=int),
        confidence=np.array(scores, dtype=np.float32) if has_scores else None,
        data={"class_name": np.array([item.label for item in graph.objects], dtype=str)},
    )


def to_fiftyone(example: Example, predicted: SceneGraph | None = None) -> fiftyone.Sample:
    """An image with its graph, and perhaps a predicted one, as a sample of FiftyOne.

    Fields: ``image_id``; ``ground_truth`` (``Detections``, boxes x, y, width, height as shares of the image, ``index``
    counted from 0) and ``ground_truth_relations``, a list of documents with ``subject`` and ``object`` (those indices),
    ``subject_label``, ``object_label``, ``predicate`` and ``confidence``; the same as ``predictions`` and
    ``predictions_relations``.

    Raises:
        UserError: the image is no file, its size is not known, or FiftyOne is not installed.
    """
    fiftyone = require("fiftyone", "to_fiftyone")
    if not isinstance(example.image, Path) or not all(example.image_wh):
        raise UserError(f"image {example.image_id!r}: FiftyOne needs an image file and its size")
    sample = fiftyone.Sample(filepath=str(example.image.absolute()), image_id=example.image_id)
    for name, graph in (("ground_truth", example.graph), ("predictions", predicted)):
        if graph is None:
            continue
        width, height = example.image_wh
        found = []
        for place, item in enumerate(graph.objects):
            x1, y1, x2, y2 = item.box
            box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            found.append(fiftyone.Detection(label=item.label, bounding_box=box, confidence=item.score, index=place))
        sample[name] = fiftyone.Detections(detections=found)
        sample[f"{name}_relations"] = [
            fiftyone.DynamicEmbeddedDocument(
                subject=relation.subject,
                object=relation.object,
                subject_label=graph.objects[relation.subject].label,
                object_label=graph.objects[relation.object].label,
                predicate=relation.predicate,
                confidence=relation.score,
            )
            for relation in graph.relations
        ]
    return sample
