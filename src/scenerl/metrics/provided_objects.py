"""SGCls and PredCls: the objects were given to the model, so its boxes (and labels) are the ground truth's."""

from __future__ import annotations

import dataclasses

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import hungarian
from scenerl.types import SceneGraph


def with_provided_objects(graph: SceneGraph, target: SceneGraph, task: str) -> SceneGraph:
    """The predicted graph with the boxes of the given objects, and for ``predcls`` their labels.

    Where an answer repeats as many objects as were given, they correspond in order. Otherwise they are assigned one to
    one by overlap (greatest total IoU), and what overlaps nothing is dropped with its relations.

    Args:
        graph: the prediction. target: the ground truth, whose objects were given.
        task: ``sgcls`` (boxes were given) or ``predcls`` (boxes and labels).

    Source: Neural Motifs (arXiv 1711.06640) puts the given boxes and labels in place of the predicted ones.
    """
    if len(graph.objects) == len(target.objects):
        place = {n: n for n in range(len(graph.objects))}
    else:
        iou_NM = iou_matrix(*(as_boxes([item.box for item in side.objects]) for side in (graph, target)))
        rows, columns = hungarian(-iou_NM)
        place = {int(n): int(m) for n, m in zip(rows, columns, strict=True) if iou_NM[n, m] > 0}
    number = {n: kept for kept, n in enumerate(sorted(place))}
    objects = []
    for n in number:
        provided = target.objects[place[n]]
        label = provided.label if task == "predcls" else graph.objects[n].label
        objects.append(dataclasses.replace(graph.objects[n], label=label, box=provided.box))
    relations = [
        dataclasses.replace(relation, subject=number[relation.subject], object=number[relation.object])
        for relation in graph.relations
        if relation.subject in number and relation.object in number
    ]
    return SceneGraph(tuple(objects), tuple(relations))
