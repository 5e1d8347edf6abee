"""SGCls and PredCls: the prompt provided the objects, so boxes (and labels) of the answer are the ground truth's."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import hungarian
from scenerl.types import SceneGraph

_TIE = 1e-6  # weight of an equal label in SGCls; the order has a thousandth of it


def with_provided_objects(graph: SceneGraph, target: SceneGraph, task: str) -> SceneGraph:
    """The predicted graph with the boxes of the provided objects, and for ``predcls`` their labels.

    What corresponds to nothing provided is dropped with its relations; see :func:`provided_places`.

    Source: Neural Motifs (arXiv 1711.06640) puts the provided boxes and labels in place of the predicted ones.
    """
    places = provided_places(graph, target, task)
    number = {n: kept for kept, n in enumerate(places)}
    objects = []
    for n, m in places.items():
        provided = target.objects[m]
        label = provided.label if task == "predcls" else graph.objects[n].label
        objects.append(graph.objects[n]._replace(label=label, box=provided.box))
    relations = [
        relation._replace(subject=number[relation.subject], object=number[relation.object])
        for relation in graph.relations
        if relation.subject in number and relation.object in number
    ]
    return SceneGraph(tuple(objects), tuple(relations))


def provided_places(graph: SceneGraph, target: SceneGraph, task: str) -> dict[int, int]:
    """Predicted object to the provided object that it stands for, in rising order of the predicted objects.

    Objects are assigned one to one for the greatest sum of IoU. In PredCls an equal label, which was provided too,
    counts as much as an IoU of 1; in SGCls, where labels are what is predicted, it decides only between boxes of equal
    overlap. The order of the objects breaks the ties that are left. Where an answer does not have as many objects as
    were provided, those that overlap nothing stand for nothing.

    Args:
        graph: the prediction. target: the ground truth, whose objects were provided.
        task: ``sgcls`` (boxes were provided) or ``predcls`` (boxes and labels).
    """
    num_predicted, num_provided = len(graph.objects), len(target.objects)
    if not num_predicted or not num_provided:
        return {}
    iou_NM = iou_matrix(*(as_boxes([item.box for item in side.objects]) for side in (graph, target)))
    predicted, provided = (np.array([item.label for item in side.objects], dtype=object) for side in (graph, target))
    same_NM = predicted[:, None] == provided[None, :]
    label_NM = same_NM if task == "predcls" else _TIE * (same_NM & (iou_NM > 0))
    # The sum of products is greatest where both sides stand in the same order.
    order_NM = np.outer(np.arange(num_predicted), np.arange(num_provided)) / (num_predicted * num_provided)
    rows, columns = hungarian(-(iou_NM + label_NM + 1e-3 * _TIE * order_NM))
    places = zip(rows.tolist(), columns.tolist(), strict=True)
    return {n: m for n, m in places if num_predicted == num_provided or iou_NM[n, m] > 0}
