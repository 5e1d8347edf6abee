"""Which predicted objects and relations are right, for display: the same hit as the metrics count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import greedy
from scenerl.types import SceneGraph

IOU_THRESHOLD = 0.5

HIT, REPEAT, FALSE = "hit", "repeat", "false"


@dataclass(frozen=True, slots=True)
class Hits:
    """``relations``: per predicted relation one of hit, repeat (right, but an earlier one took the target) or false.
    ``found``: per target relation whether some predicted relation hits it. ``objects``: per predicted object whether it
    is matched. ``found_objects``: per target object likewise."""

    relations: tuple[str, ...]
    found: tuple[bool, ...]
    objects: tuple[bool, ...]
    found_objects: tuple[bool, ...]

    def f1(self, of_relations: bool) -> float:
        """F1 of the relations or of the objects, as `eval --compare` scores an image: 1 where there is nothing on
        either side.

        >>> Hits(("hit", "false"), (True,), (), ()).f1(of_relations=True)
        0.6666666666666666
        """
        if of_relations:
            right, total = self.relations.count(HIT), len(self.relations) + len(self.found)
        else:
            right, total = sum(self.objects), len(self.objects) + len(self.found_objects)
        return 2 * right / total if total else 1.0


def compare(prediction: SceneGraph, target: SceneGraph) -> Hits:
    """Match a predicted graph with its target.

    A relation hits a target relation when subject label, predicate and object label are equal and both boxes overlap
    with IoU of at least 0.5; in order of emission each takes the first target that is free, as precision counts them. A
    target is found when any prediction hits it, as recall counts it. Objects are matched greedily by IoU
    among equal labels.
    """
    iou_NM = iou_matrix(_boxes(prediction), _boxes(target))
    same_NM = _equal([item.label for item in prediction.objects], [item.label for item in target.objects])
    objects, found_objects = greedy(np.where(same_NM, iou_NM, -1.0), IOU_THRESHOLD)

    pass_NM = same_NM & (iou_NM >= IOU_THRESHOLD)
    subject_RT = pass_NM[_ends(prediction, "subject")][:, _ends(target, "subject")]
    object_RT = pass_NM[_ends(prediction, "object")][:, _ends(target, "object")]
    predicate_RT = _equal(
        [item.predicate for item in prediction.relations], [item.predicate for item in target.relations]
    )
    right_RT = subject_RT & object_RT & predicate_RT
    hits, _ = greedy(right_RT.astype(float), 1.0)
    states = np.where(right_RT.any(axis=1), REPEAT, FALSE).tolist()
    for index in hits:
        states[index] = HIT
    return Hits(
        tuple(states),
        tuple(right_RT.any(axis=0).tolist()),
        _flags(objects, len(prediction.objects)),
        _flags(found_objects, len(target.objects)),
    )


def _boxes(graph: SceneGraph) -> np.ndarray:
    return as_boxes([item.box for item in graph.objects])


def _equal(a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """(len(a), len(b)) of whether the texts are equal."""
    codes = {text: code for code, text in enumerate({*a, *b})}
    a_codes, b_codes = (np.array([codes[text] for text in texts], dtype=int) for texts in (a, b))
    return np.equal.outer(a_codes, b_codes)


def _ends(graph: SceneGraph, end: str) -> np.ndarray:
    return np.array([getattr(relation, end) for relation in graph.relations], dtype=int)


def _flags(indices: np.ndarray, size: int) -> tuple[bool, ...]:
    flags = np.zeros(size, dtype=bool)
    flags[indices] = True
    return tuple(flags.tolist())
