"""F1 at IoU as Rex-Omni's released evaluator averages it: over classes first."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from scenerl.metrics.average_precision import Matches
from scenerl.metrics.candidates import Objects
from scenerl.metrics.columns import Array

LEVELS = {"F1@0.5": (0,), "F1@0.95": (9,), "F1_mean": tuple(range(10))}
"""Metric to the IoU levels of .50:.05:.95 that it averages over."""


class ClassF1:
    """F1 of the mean precision and the mean recall over classes (and levels), values of 0 left out of both means.

    Source: the evaluator released with Rex-Omni (arXiv 2510.12798), which skips values that are not positive.
    """

    def __init__(self, objects: Objects, matches: Matches, num_images: int) -> None:
        self.names = tuple(LEVELS)
        labels, row_T = np.unique(objects.label_T, return_inverse=True)
        self.shape = (len(labels), num_images)
        self.targets = self._sum(row_T, objects.image_T)
        place = np.searchsorted(labels, objects.label_P)
        known = np.isin(objects.label_P, labels)

        def predictions(chosen_P: Array) -> csr_matrix:
            chosen = chosen_P & known
            return self._sum(place[chosen], objects.image_P[chosen])

        self.predicted = [predictions(~ignored_P) for ignored_P in matches.ignored_LP]
        self.hits = [predictions(hit_P) for hit_P in matches.hit_LP]

    def _sum(self, row: Array, image: Array) -> csr_matrix:
        return csr_matrix((np.ones(len(row)), (row, image)), shape=self.shape)

    @property
    def support(self) -> Array:
        """Number of classes with a target, per metric."""
        return np.full(len(LEVELS), self.shape[0])

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (3, B), NaN without any target."""
        targets = self.targets @ weights_NB
        hits = np.stack([level @ weights_NB for level in self.hits])
        predicted = np.stack([level @ weights_NB for level in self.predicted])
        precision = np.divide(hits, predicted, out=np.zeros(hits.shape), where=predicted > 0)
        recall = np.divide(hits, targets, out=np.zeros(hits.shape), where=np.broadcast_to(targets > 0, hits.shape))
        rows = []
        for levels in LEVELS.values():
            p, r = (_positive_mean(values[list(levels)]) for values in (precision, recall))
            rows.append(np.divide(2 * p * r, p + r, out=np.zeros(p.shape), where=p + r > 0))
        return np.where(targets.sum(axis=0) > 0, np.stack(rows), np.nan)


def _positive_mean(values_LCB: Array) -> Array:
    number = (values_LCB > 0).sum(axis=(0, 1))
    return np.divide(values_LCB.sum(axis=(0, 1)), number, out=np.zeros(number.shape), where=number > 0)
