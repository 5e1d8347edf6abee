"""Precision, recall and F1, density, duplicates and hallucinations: what recall alone does not see."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import iou_of_pairs
from scenerl.metrics.candidates import Candidates, one_to_one
from scenerl.metrics.columns import Array, ObjectColumns, RelationColumns, join

_JOINED = 4_000_000  # pairs of relations held at a time


def matched_per_image(candidates: Candidates, image_P: Array, num_targets: int, num_images: int) -> Array:
    """Number of one-to-one matches of each image, (N,): a largest matching, so no order matters."""
    matched, _ = one_to_one(candidates, len(image_P), num_targets)
    return np.bincount(image_P[matched], minlength=num_images).astype(float)


def unmatched_per_image(candidates: Candidates, image_P: Array, num_images: int) -> Array:
    """Number of predictions of each image that fit no target at all, (N,). A repeated hit is no hallucination."""
    fits = np.zeros(len(image_P), dtype=bool)
    fits[candidates.prediction_C] = True
    return np.bincount(image_P[~fits], minlength=num_images).astype(float)


def duplicates(
    objects: ObjectColumns, relations: RelationColumns, iou_threshold: float = 0.5, offset: float = 0.0
) -> tuple[Array, Array]:
    """Which objects and relations repeat an earlier one of the same image.

    An object repeats another with the same label and an IoU of at least the threshold, a relation repeats another with
    the same predicate between repeated (or the same) subjects and objects: no target could tell them apart.

    Returns:
        (O,) bool and (R,) bool.
    """
    key = objects.image_O * (int(objects.label_O.max(initial=0)) + 1) + objects.label_O
    later, earlier = _same(key, np.arange(len(key)))
    alike = iou_of_pairs(objects.box_O[later], objects.box_O[earlier], offset) >= iou_threshold
    later, earlier = later[alike], earlier[alike]
    repeated_O = np.zeros(len(objects), dtype=bool)
    repeated_O[later] = True
    return repeated_O, _repeated_relations(objects, relations, later, earlier)


def _repeated_relations(objects: ObjectColumns, relations: RelationColumns, later: Array, earlier: Array) -> Array:
    width = max(len(objects), 1)
    exact = np.stack([relations.subject_R, relations.object_R, relations.predicate_R])
    order = np.lexsort(exact)
    repeated_R = np.zeros(len(relations), dtype=bool)
    repeated_R[order[1:]] = (np.diff(exact[:, order], axis=1) == 0).all(axis=0)
    # Only images with objects that look the same can hold other repetitions.
    unclear = np.zeros(int(objects.image_O.max(initial=0)) + 1, dtype=bool)
    unclear[objects.image_O[later]] = True
    some = np.flatnonzero(unclear[relations.image_R]) if len(relations) else np.zeros(0, dtype=np.int64)
    same = np.sort(np.concatenate([later * width + earlier, earlier * width + later]))
    labels = int(objects.label_O.max(initial=0)) + 1
    key = objects.label_O[relations.subject_R[some]] * labels + objects.label_O[relations.object_R[some]]
    key = (relations.image_R[some] * (int(relations.predicate_R.max(initial=0)) + 1) + relations.predicate_R[some]) * (
        labels * labels
    ) + key

    def alike(a: Array, b: Array) -> Array:
        wanted = a * width + b
        place = np.minimum(np.searchsorted(same, wanted), len(same) - 1)
        return (a == b) | (same[place] == wanted)

    for part in _parts(key):
        late, early = _same(key[part], some[part])
        both = alike(relations.subject_R[late], relations.subject_R[early])
        both &= alike(relations.object_R[late], relations.object_R[early])
        repeated_R[late[both]] = True
    return repeated_R


def _same(key: Array, index: Array) -> tuple[Array, Array]:
    """Pairs of elements with equal keys, the later and the earlier one, as entries of ``index``."""
    a, b = join(key, key)
    later = a > b
    return index[a[later]], index[b[later]]


def _parts(key: Array) -> list[Array]:
    """Indices in groups that keep equal keys together and bound the number of pairs within."""
    order = np.argsort(key, kind="stable")
    _, first, number = np.unique(key[order], return_index=True, return_counts=True)
    load = np.cumsum(number.astype(np.int64) ** 2) // _JOINED
    cuts = first[1:][np.diff(load) > 0]
    return [np.sort(part) for part in np.split(order, cuts)] if len(key) else []


class Ratios:
    """Metrics of the form sum over images of ``numerator`` / sum of ``denominator``; one row each.

    An average over images is one of them: its numerator is the image's value, its denominator 1 (0 where the image
    does not count).
    """

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Array, Array]] = {}

    def add(self, name: str, numerator_N: Array, denominator_N: Array | None = None) -> None:
        """Add a metric; without a denominator it is the mean over all images."""
        denominator_N = np.ones(len(numerator_N)) if denominator_N is None else denominator_N
        self.rows[name] = (np.asarray(numerator_N, dtype=float), np.asarray(denominator_N, dtype=float))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.rows)

    @property
    def support(self) -> Array:
        """What each metric divides by."""
        return np.array([denominator.sum() for _, denominator in self.rows.values()])

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (metrics, B), NaN where nothing is divided by."""
        numerator, denominator = (
            np.stack(columns).astype(weights_NB.dtype, copy=False) @ weights_NB
            for columns in zip(*self.rows.values(), strict=True)
        )
        return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
