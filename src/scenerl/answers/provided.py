"""The target answer where the prompt provides objects."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import greedy
from scenerl.types import Example, Relation, SceneGraph, SceneObject

MIN_IOU = 0.5


def answer_graph(example: Example, provided: str | None) -> SceneGraph:
    """The graph of the target answer: the ground truth, or a detector's objects with its relations between them.

    Each of a detector's objects, best score first, is matched to the object of the ground truth that it overlaps most,
    at IoU 0.5 or above, and of the same label where labels are provided. Where only boxes are, it takes that object's
    label. An object without a match keeps the detector's label and has no relations.

    Args:
        example: the image.
        provided: what the prompt provides, as in :class:`~scenerl.answers.OutputFormat`.
    """
    if provided is None or example.provided is None:
        return example.graph
    objects, target = example.provided, example.graph
    iou_NM = iou_matrix(*(as_boxes([item.box for item in side]) for side in (objects, target.objects)))
    if provided == "objects":
        labels, others = (np.array([item.label for item in side], dtype=object) for side in (objects, target.objects))
        iou_NM = np.where(labels[:, None] == others[None, :], iou_NM, -1.0)
    place = {int(m): int(n) for n, m in zip(*greedy(iou_NM, MIN_IOU), strict=True)}
    named = {n: target.objects[m].label for m, n in place.items()}
    return SceneGraph(
        tuple(SceneObject(named.get(n, item.label), item.box) for n, item in enumerate(objects)),
        tuple(
            Relation(place[edge.subject], edge.predicate, place[edge.object])
            for edge in target.relations
            if edge.subject in place and edge.object in place
        ),
    )
