"""Calibration of scores: how often a prediction of confidence p is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenerl.metrics.arrays import DataSet, one_to_one

NUM_BINS = 10


def reliability(confidence: Sequence[float], correct: Sequence[bool]) -> dict:
    """The reliability curve over ten equal bins of confidence, and the expected calibration error (ECE).

    Args:
        confidence: in [0, 1]; a value on an edge belongs to the bin above it, 1 to the last.
        correct: whether each prediction is right; of equal length, at least 1.

    Returns:
        ``ece``, the mean gap between confidence and accuracy weighted by bin counts; ``edges`` (bins + 1);
        ``counts``, mean ``confidence`` and ``accuracy`` (bins), None in empty bins.

    Source: Guo et al. 2017, arXiv 1706.04599.

    >>> reliability([0.9, 0.9, 0.1, 0.1], [True, False, False, False])["ece"]
    0.25
    """
    place = np.minimum((np.asarray(confidence) * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(place, minlength=NUM_BINS)
    sums = [np.bincount(place, weights=values, minlength=NUM_BINS) for values in (confidence, correct)]
    means = [[float(total / n) if n else None for total, n in zip(side, counts, strict=True)] for side in sums]
    return {
        "ece": float(np.abs(sums[0] - sums[1]).sum() / len(place)),
        "edges": np.linspace(0, 1, NUM_BINS + 1).tolist(),
        "counts": counts.tolist(),
        "confidence": means[0],
        "accuracy": means[1],
    }


def calibration(data: DataSet) -> dict[str, dict]:
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
