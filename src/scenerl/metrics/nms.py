"""NMS-AP of OVDEval: predictions that crowd around one target under several labels are thinned before AP."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import iou_of_pairs
from scenerl.metrics.candidates import Objects
from scenerl.metrics.columns import Array, join

NMS_IOU = 0.5
_JOINED = 2_000_000  # pairs of boxes held at a time


def kept_by_nms(objects: Objects) -> Array:
    """Which predictions are left when each target keeps its best-scored prediction.

    For each target, whatever the labels, of the predictions with IoU above 0.5 the one of highest score stays (of equal
    scores the one of highest IoU, then the first emitted, which OVDEval leaves open); the others go unless another
    target keeps them. Predictions that overlap no target stay.

    Returns:
        (P,) bool.

    Source: OVDEval (Yao et al. 2023, arXiv 2308.13177), NMS-AP.
    """
    keep_P = np.ones(len(objects.image_P), dtype=bool)
    best_P = np.zeros(len(objects.image_P), dtype=bool)
    for targets in _blocks(objects):
        t, p = join(objects.image_T[targets], objects.image_P)
        t = targets[t]
        iou = iou_of_pairs(objects.box_P[p], objects.box_T[t])
        near = iou > NMS_IOU
        t, p, iou = t[near], p[near], iou[near]
        order = np.lexsort((p, -iou, -objects.score_P[p], t))
        first = np.ones(len(order), dtype=bool)
        first[1:] = np.diff(t[order]) != 0
        keep_P[p] = False
        best_P[p[order[first]]] = True
    return keep_P | best_P


def _blocks(objects: Objects) -> list[Array]:
    """Target indices in blocks that bound the number of pairs with predictions of the same image."""
    most = int(max(objects.image_P.max(initial=0), objects.image_T.max(initial=0))) + 1
    load = np.cumsum(np.bincount(objects.image_P, minlength=most)[objects.image_T]) // _JOINED
    return np.split(np.arange(len(load)), np.flatnonzero(np.diff(load)) + 1)
