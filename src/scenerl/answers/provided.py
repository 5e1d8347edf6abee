"""The answer that a prompt with provided objects asks for."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import greedy
from scenerl.types import Example, Relation, SceneGraph, SceneObject

MIN_IOU = 0.5


def answer_graph(example: Example, provided: str | None) -> SceneGraph:
    """The graph that an ideal answer holds: the ground truth, or the given objects with its relations between them.

    A detector's objects, best score first, each stand for the object of the ground truth that they overlap most, at IoU
    0.5 or above, and of the same label where labels are given; where only boxes are, they take that object's label. One
    that stands for nothing keeps the detector's label and has no relations.

    Args:
        example: the image. given: what the prompt tells, as in :class:`~scenerl.answers.OutputFormat`.
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
