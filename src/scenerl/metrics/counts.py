"""Precision, recall and F1, density, duplicates and hallucinations: what recall alone does not see."""

from __future__ import annotations

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.metrics.candidates import Array, Candidates, one_to_one
from scenerl.types import SceneGraph


def matched_per_image(candidates: Candidates, image_P: Array, num_targets: int, num_images: int) -> Array:
    """Number of one-to-one matches of each image, (N,): a largest matching, so no order matters."""
    matched, _ = one_to_one(candidates, len(image_P), num_targets)
    return np.bincount(image_P[matched], minlength=num_images).astype(float)


def unmatched_per_image(candidates: Candidates, image_P: Array, num_images: int) -> Array:
    """Number of predictions of each image that fit no target at all, (N,). A repeated hit is no hallucination."""
    fits = np.zeros(len(image_P), dtype=bool)
    fits[candidates.prediction_C] = True
    return np.bincount(image_P[~fits], minlength=num_images).astype(float)


def count_duplicates(graph: SceneGraph, iou_threshold: float = 0.5, offset: float = 0.0) -> tuple[int, int]:
    """Objects and relations that repeat an earlier one of the same graph.

    An object repeats another with the same label and an IoU of at least the threshold, a relation repeats another with
    the same predicate between repeated (or the same) subjects and objects: no target could tell them apart.

    Returns:
        Number of repeating objects, number of repeating relations.
    """
    num_labels = len({entry.label for entry in graph.objects})
    if num_labels == len(graph.objects) and len(set(graph.relations)) == len(graph.relations):
        return 0, 0
    boxes = as_boxes([entry.box for entry in graph.objects])
    names: dict[str, int] = {}
    label = np.array([names.setdefault(entry.label, len(names)) for entry in graph.objects])
    same = (label[:, None] == label[None, :]) & (iou_matrix(boxes, boxes, offset) >= iou_threshold)
    num_objects = int(np.tril(same, -1).any(axis=1).sum())
    if len({graph.triplet(relation) for relation in graph.relations}) == len(graph.relations):
        return num_objects, 0
    np.fill_diagonal(same, True)
    names.clear()
    subject = np.array([relation.subject for relation in graph.relations])
    object_ = np.array([relation.object for relation in graph.relations])
    predicate = np.array([names.setdefault(relation.predicate, len(names)) for relation in graph.relations])
    repeated = same[subject[:, None], subject] & same[object_[:, None], object_]
    repeated &= predicate[:, None] == predicate[None, :]
    return num_objects, int(np.tril(repeated, -1).any(axis=1).sum())


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
        numerator, denominator = (np.stack(columns) @ weights_NB for columns in zip(*self.rows.values(), strict=True))
        return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
