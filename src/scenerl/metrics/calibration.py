"""Calibration of scores: how often a prediction of confidence p is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics.arrays import Array, DataSet, one_to_one

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve over equal bins of confidence, and the expected calibration error (ECE).

    ``edges`` (bins + 1,), ``counts`` (bins,), mean ``confidence`` and ``accuracy`` (bins,), NaN in empty bins.
    """

    edges: Array
    counts: Array
    confidence: Array
    accuracy: Array
    ece: float | None

    def to_json(self) -> dict:
        def plain(values: Array) -> list:
            return [None if np.isnan(value) else float(value) for value in values]

        return {
            "ece": self.ece,
            "edges": plain(self.edges),
            "counts": self.counts.tolist(),
            "confidence": plain(self.confidence),
            "accuracy": plain(self.accuracy),
        }


def reliability(confidence: Sequence[float], correct: Sequence[bool], num_bins: int = NUM_BINS) -> Reliability:
    """The reliability curve and the ECE: the mean gap between confidence and accuracy, weighted by bin counts.

    Args:
        confidence: in [0, 1]; a value on an edge belongs to the bin above it, 1 to the last.
        correct: whether each prediction is right.
        num_bins: bins of equal width.

    Returns:
        The curve; ``ece`` is None without predictions.

    Raises:
        UserError: a confidence outside [0, 1], or lists of different lengths.

    Source: Guo et al. 2017, arXiv 1706.04599.

    >>> reliability([0.9, 0.9, 0.1, 0.1], [True, False, False, False], 2).ece
    0.25
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if confidence.shape != correct.shape:
        raise UserError(f"{len(confidence)} confidences but {len(correct)} outcomes")
    if len(confidence) and not (confidence.min() >= 0 and confidence.max() <= 1):
        raise UserError("confidences must lie in [0, 1]")
    place = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    sums = [np.bincount(place, weights=values, minlength=num_bins) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (total / counts for total in sums)
    gaps = np.abs(sums[0] - sums[1]).sum()
    ece = float(gaps / len(confidence)) if len(confidence) else None
    return Reliability(np.linspace(0, 1, num_bins + 1), counts, mean_confidence, accuracy, ece)


def calibration(data: DataSet) -> dict[str, Reliability]:
    """Reliability of scored objects and of scored relations, where all their scores are probabilities.

    A prediction is right when a largest one-to-one matching with the targets contains it. Elements without a score are
    left out; a kind without any score, or with one outside [0, 1], is not in the result.
    """
    found = {}
    for name, scores, fits in (
        ("objects", data.objects.predicted.score_O, data.objects.fits),
        ("relations", data.relations.predicted.score_R, data.relations.fits),
    ):
        scored = ~np.isnan(scores)
        if scored.any() and scores[scored].min() >= 0 and scores[scored].max() <= 1:
            right = np.zeros(len(scores), dtype=bool)
            right[one_to_one(fits)[0]] = True
            found[name] = reliability(scores[scored], right[scored])
    return found
