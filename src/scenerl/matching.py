"""Assignment: pairs of prediction and target indices."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def hungarian(cost_NM: Array) -> tuple[Array, Array]:
    """The assignment of least total cost; the smaller side is matched whole.

    Args:
        cost_NM: (N, M) finite costs of prediction n against target m.

    Returns:
        Two integer arrays of length min(N, M): prediction indices, ascending, and their target indices.
    """
    wide = cost_NM.shape[0] <= cost_NM.shape[1]
    cost_SL = cost_NM if wide else cost_NM.T  # the smaller side against the larger
    if cost_SL.size:
        best_S = cost_SL.argmin(axis=1)
        least_S = np.count_nonzero(cost_SL == cost_SL[np.arange(len(best_S)), best_S][:, None])
        if least_S == len(best_S) == len(set(best_S.tolist())):  # each has one best, which is nobody else's
            return (np.arange(len(best_S)), best_S) if wide else (np.sort(best_S), best_S.argsort())
    from scipy.optimize import linear_sum_assignment  # takes a third of the start-up time of `score`

    return linear_sum_assignment(cost_NM)


def greedy(score_NM: Array, threshold: float) -> tuple[Array, Array]:
    """Predictions in order each take the free target they score best with, if that reaches ``threshold``.

    The order of rows is the ranking (sort by confidence first where there is one). Of equal scores the lower target
    index wins. This is the matching of COCO's evaluator at a single threshold.

    Args:
        score_NM: (N, M) scores, usually IoU with -1 where the labels differ.
        threshold: least score of a match, inclusive.

    Returns:
        Two integer arrays of equal length: prediction indices, ascending, and their target indices.
    """
    free = np.ones(score_NM.shape[1], dtype=bool)
    predictions, targets = [], []
    for n, row in enumerate(score_NM):
        if not free.any():
            break
        candidates = np.where(free, row, -np.inf)
        m = int(candidates.argmax())
        if candidates[m] >= threshold:
            free[m] = False
            predictions.append(n)
            targets.append(m)
    return np.array(predictions, dtype=int), np.array(targets, dtype=int)
