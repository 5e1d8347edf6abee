"""COCO's average precision of one image whose predictions all have the same score, in plain Python.

The evaluator for data sets is a maintained one (see :mod:`scenerl.metrics`); a reward needs a hundred microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# COCO's own grids, built the same way so that equal-looking thresholds are equal floats.
IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
RECALL_POINTS: list[float] = np.linspace(0.0, 1.0, 101).tolist()
MAX_DETECTIONS = 100  # COCO looks at so many detections of a class


def average_precisions(
    iou: list[list[float]], predicted: Sequence[str], targets: Sequence[str], on_crowd: Sequence[float]
) -> list[float]:
    """AP at each of :data:`IOU_THRESHOLDS`, averaged over the labels of the targets.

    Args:
        iou: N rows of M values. predicted: N labels in order of emission, which ranks them. targets: M labels, not 0.
        on_crowd: N shares of the boxes that lie on a crowd region of their label: boxes that take no target are passed
            over at thresholds up to it.

    Returns:
        10 values in [0, 1]. Labels that the targets lack count for nothing.
    """
    assert targets, "average precision is undefined without targets"
    rows_of, columns_of = _indices_of(predicted), _indices_of(targets)
    totals = [0.0] * len(IOU_THRESHOLDS)
    for label, columns in columns_of.items():
        rows = rows_of.get(label, [])[:MAX_DETECTIONS]
        shares = [on_crowd[n] for n in rows]
        if len(columns) == 1 and not any(
            shares
        ):  # most labels of an image: the first box that reaches a threshold is its only hit
            start = 0
            for rank, n in enumerate(rows, start=1):
                end = bisect_right(IOU_THRESHOLDS, iou[n][columns[0]])
                for index in range(start, end):
                    totals[index] += 1.0 / rank
                start = max(start, end)
            continue
        # Per prediction the targets it may take, best first; of equal IoU COCO takes the later target.
        choices = [
            sorted([(iou[n][m], m) for m in columns if iou[n][m] >= IOU_THRESHOLDS[0]], reverse=True) for n in rows
        ]
        # An IoU reaches the first so many thresholds; between two such numbers all thresholds match alike.
        reached = {bisect_right(IOU_THRESHOLDS, value) for choice in choices for value, _ in choice}
        reached |= {bisect_right(IOU_THRESHOLDS, share) for share in shares}
        start = 0
        for end in sorted(reached - {0}):
            value = _interpolated_precision(_hit_ranks(choices, shares, IOU_THRESHOLDS[start]), len(columns))
            for index in range(start, end):
                totals[index] += value
            start = end
    return [total / len(columns_of) for total in totals]


def _indices_of(labels: Sequence[str]) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        indices.setdefault(label, []).append(index)
    return indices


def _hit_ranks(choices: list[list[tuple[float, int]]], shares: list[float], threshold: float) -> list[int]:
    """Ranks, from 1, of the predictions that take a target: each in turn takes the best that is still free. One that
    takes none but lies on a crowd region has no rank."""
    taken: set[int] = set()
    ranks, rank = [], 0
    for choice, share in zip(choices, shares, strict=True):
        found = next((m for value, m in choice if value >= threshold and m not in taken), None)
        if found is not None:
            taken.add(found)
            ranks.append(rank + 1)
        rank += found is not None or share < threshold
    return ranks


def _interpolated_precision(ranks: list[int], num_targets: int) -> float:
    """Mean over COCO's 101 recall points of the best precision at that recall or a higher one."""
    points = _points_per_hit(num_targets)
    total, best = 0.0, 0.0
    for num_hits in range(len(ranks), 0, -1):
        best = max(best, num_hits / ranks[num_hits - 1])
        total += points[num_hits - 1] * best
    return total / len(RECALL_POINTS)


@lru_cache(maxsize=1024)
def _points_per_hit(num_targets: int) -> list[int]:
    """How many recall points the k-th hit reaches that the one before did not; recall 0 goes with the first."""
    reached = [bisect_right(RECALL_POINTS, hits / num_targets) for hits in range(1, num_targets + 1)]
    return [now - before for before, now in zip([0, *reached], reached, strict=False)]
