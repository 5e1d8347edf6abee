"""COCO's AP family, OVDEval's NMS-AP, and greedy precision, recall and F1 at an IoU.

COCO's evaluators cannot weight images, which the bootstrap needs, so the accumulation is our own: the same matches and
the same 101-point curve, with a weight per image. At weights of 1 it equals faster-coco-eval and pycocotools; tests
hold it to 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from scenerl.boxes import iou_of_pairs
from scenerl.metrics.arrays import Array, Objects, join, per_image, positions, starts
from scenerl.metrics.precision import RatioMetrics

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_ROUNDING = 1e-9  # of recall in percent; far below the step between two recalls
# COCO's points are floating-point numbers, some of them above the hundredth that they stand for: a recall of exactly
# that hundredth does not reach them.
_LATE = np.arange(101) + np.where(np.arange(101) / 100 < RECALL_POINTS, _ROUNDING, -1.0)
MAX_DETECTIONS = 100
NAMES = ("AP", "AP50", "AP75", "AR100")
LEVELS = {"F1@0.5": (0,), "F1@0.95": (9,), "F1_mean": tuple(range(10))}
"""Metric to the IoU levels of .50:.05:.95 that it averages over."""
NMS_IOU = 0.5
_BLOCK = 200_000  # numbers in a block of a class's detections that stay in the processor's cache
_COLUMNS, _LARGEST = 128, 5_000_000  # in classes beyond that, fewer columns are slower; what bounds memory
_JOINED = 2_000_000  # pairs of boxes held at a time


def greedy_matches(objects: Objects) -> tuple[Array, Array]:
    """COCO's greedy matching.

    In each image and class, predictions take in the order of their scores (emission where they are equal) the free
    target of highest IoU; of equal IoUs the later target, as COCO does. Those that take none but lie on a crowd region
    are ignored.

    Returns:
        (10, P) bool: the true positives at each of the ten IoU thresholds. (10, P) bool: what is ignored.
    """
    candidates = objects.coco
    hit_LP = np.zeros((len(IOU_THRESHOLDS), len(objects.predicted)), dtype=bool)
    taken_LT = np.zeros((len(IOU_THRESHOLDS), len(objects.target)), dtype=bool)
    # Round n takes the n-th prediction with a candidate of every image and class at once.
    p = np.unique(candidates.prediction_C)
    key = objects.predicted.keys[p]
    order = np.lexsort((-objects.score_P[p], key))
    round_P = np.zeros(len(objects.predicted), dtype=np.int64)
    round_P[p[order]] = positions(key[order])
    order = np.lexsort(
        (candidates.target_C, candidates.iou_C, candidates.prediction_C, round_P[candidates.prediction_C])
    )
    candidates = candidates.select(order)
    prediction_C, target_C = candidates.prediction_C, candidates.target_C
    enough_LC = candidates.iou_C >= IOU_THRESHOLDS[:, None]
    first = starts(prediction_C)
    rounds = round_P[prediction_C]
    bounds = np.searchsorted(rounds, np.arange(rounds.max(initial=-1) + 2))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        targets = target_C[start:stop]
        free = enough_LC[:, start:stop] & ~taken_LT[:, targets]
        # Candidates of a prediction stand in rising order: the last free one is the best.
        last = np.maximum.reduceat(
            np.where(free, np.arange(stop - start), -1), np.flatnonzero(first[start:stop]), axis=1
        )
        level, which = np.nonzero(last >= 0)
        best = last[level, which]
        taken_LT[level, targets[best]] = True
        hit_LP[level, prediction_C[start:stop][best]] = True
    return hit_LP, ~hit_LP & (objects.crowd_P >= IOU_THRESHOLDS[:, None])


def add_greedy(
    ratios: RatioMetrics, objects: Objects, matches: tuple[Array, Array], dropped_N: Array, micro_f1: bool
) -> None:
    """Greedy precision and recall at IoU 0.5, and with ``micro_f1`` F1 over sums at the :data:`LEVELS`.

    Args:
        matches: from :func:`greedy_matches`.
        dropped_N: number of objects in each answer that the parser dropped: predictions that match nothing.
    """
    image_P, num_images = objects.predicted.image_O, len(dropped_N)
    target = per_image(objects.target.image_O, num_images)
    hit_LP, ignored_LP = matches
    hits = [per_image(image_P[hit_P], num_images) for hit_P in hit_LP]
    counted = [per_image(image_P[~ignored_P], num_images) + dropped_N for ignored_P in ignored_LP]
    ratios.add("greedy_precision", hits[0], counted[0])
    ratios.add("greedy_recall", hits[0], target)
    for name, levels in LEVELS.items() if micro_f1 else ():
        divisor = np.mean([counted[level] for level in levels], axis=0) + target
        ratios.add(name, 2 * np.mean([hits[level] for level in levels], axis=0), divisor)


@dataclass(frozen=True, slots=True)
class _Class:
    """One class that has targets: its detections in COCO's order, and its targets per image."""

    image_D: Array
    hit_LD: Array
    ignored_LD: Array
    target_image: Array
    target_count: Array

    def add(self, weights_NB: Array, positives_B: Array, precision_LB: Array, recall_LB: Array) -> None:
        """Add average precisions and final recalls. Only rows of true positives matter: between two of them recall
        stands still and precision falls."""
        rows = np.flatnonzero(self.hit_LD.any(axis=0))
        if not len(rows):
            return
        weight_DB = weights_NB.take(self.image_D, axis=0)
        weight_RB = weight_DB.take(rows, axis=0)
        any_ignored = self.ignored_LD.any()
        seen_RB = None if any_ignored else accumulate(np.add, weight_DB).take(rows, axis=0)
        for level, hit_D in enumerate(self.hit_LD):
            chosen = np.flatnonzero(hit_D[rows])
            if not len(chosen):
                continue
            if any_ignored:
                counted = weight_DB * ~self.ignored_LD[level][:, None]
                seen_HB = accumulate(np.add, counted).take(rows[chosen], axis=0)
            else:
                seen_HB = seen_RB.take(chosen, axis=0)
            average, final = average_precision(weight_RB.take(chosen, axis=0), seen_HB, positives_B)
            precision_LB[level] += average
            recall_LB[level] += final


def average_precision(weight_HB: Array, seen_HB: Array, positives_B: Array) -> tuple[Array, Array]:
    """Interpolated average precision and final recall of one class at one threshold.

    Args:
        weight_HB: whole-number weights of the H true positives. seen_HB: weight of all detections up to each of them.
            Both are overwritten.
        positives_B: weight of all targets.

    Returns:
        (B,) average precision over 101 recall points and (B,) recall at the end; 0 where there is no target.
    """
    found_HB = accumulate(np.add, weight_HB)
    final_B = found_HB[-1] / np.maximum(positives_B, 1.0)
    percent_HB = found_HB * (100.0 / np.maximum(positives_B, 1.0))
    # Nothing seen means nothing found: precision 0.
    enclosing_HB = np.divide(found_HB, np.maximum(seen_HB, 1.0, out=seen_HB), out=seen_HB)
    accumulate(np.maximum, enclosing_HB[::-1])
    # How many recall points each recall reaches: those up to its whole percents, but for the last where it is late.
    whole_HB = (percent_HB + _ROUNDING).astype(np.intp)
    reached_HB = whole_HB + (percent_HB > _LATE.take(whole_HB))
    # A first true positive of weight 0 reaches recall point 0 only, and its envelope is that of the ones after it.
    enclosing_HB[1:] *= reached_HB[1:] - reached_HB[:-1]
    enclosing_HB[0] *= reached_HB[0]
    average_B = enclosing_HB.sum(axis=0) / len(RECALL_POINTS)
    return np.where(positives_B > 0, average_B, 0.0), final_B


def accumulate(operation: np.ufunc, rows_HB: Array) -> Array:
    """``operation.accumulate`` along the first axis, in place; of many columns faster, by whole blocks of rows."""
    if rows_HB.shape[1] < 16:
        return operation.accumulate(rows_HB, axis=0, out=rows_HB)
    size = max(1, int(len(rows_HB) ** 0.5))
    blocks = len(rows_HB) // size
    block = rows_HB[: blocks * size].reshape(blocks, size, -1)
    for row in range(1, size):
        operation(block[:, row - 1], block[:, row], out=block[:, row])
    for number in range(1, blocks):
        operation(block[number], block[number - 1, -1], out=block[number])
    for row in range(blocks * size, len(rows_HB)):
        operation(rows_HB[row - 1], rows_HB[row], out=rows_HB[row])
    return rows_HB


class CocoMetrics:
    """AP, AP50, AP75 and AR100 under image weights.

    Args:
        objects: all objects; a class without any target plays no part, as in COCO.
        matches: from :func:`greedy_matches`.
        turn_N: place of each image in the order of COCO's evaluators, see :func:`coco_order`. Detections of equal score
            stand in that order, and within an image in the order of emission.
        prefix: put before the metrics' names.
    """

    def __init__(self, objects: Objects, matches: tuple[Array, Array], turn_N: Array, prefix: str = "") -> None:
        self.names = tuple(prefix + name for name in NAMES)
        predicted, target = objects.predicted, objects.target
        order = np.lexsort((-objects.score_P, turn_N[predicted.image_O], predicted.label_O))
        kept = order[positions(predicted.keys[order]) < MAX_DETECTIONS]
        # Across images COCO sorts by score alone, stably: equal scores stay in the order of the images.
        kept = kept[np.lexsort((-objects.score_P[kept], predicted.label_O[kept]))]
        labels, target_order = predicted.label_O[kept], np.argsort(target.label_O, kind="stable")
        target_labels, target_images = target.label_O[target_order], target.image_O[target_order]
        hit_LP, ignored_LP = matches
        self.classes = []
        for name in np.unique(target_labels):
            chosen = kept[slice(*np.searchsorted(labels, [name, name + 1]))]
            own = slice(*np.searchsorted(target_labels, [name, name + 1]))
            self.classes.append(
                _Class(
                    predicted.image_O[chosen],
                    hit_LP[:, chosen],
                    ignored_LP[:, chosen],
                    *np.unique(target_images[own], return_counts=True),
                )
            )
        self.support = np.full(len(NAMES), len(self.classes))

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (4, B), NaN without any target."""
        num_samples = weights_NB.shape[1]
        precision = np.zeros((len(IOU_THRESHOLDS), num_samples))
        recall = np.zeros_like(precision)
        num_classes = np.zeros(num_samples)
        for entry in self.classes:
            size = max(1, len(entry.image_D))
            step = max(1, _BLOCK // size, min(_COLUMNS, _LARGEST // size))
            for start in range(0, num_samples, step):
                part = slice(start, start + step)
                positives_B = entry.target_count.astype(float) @ weights_NB[entry.target_image, part]
                num_classes[part] += positives_B > 0
                entry.add(weights_NB[:, part], positives_B, precision[:, part], recall[:, part])
        with np.errstate(invalid="ignore"):
            precision, recall = precision / num_classes, recall / num_classes
        fifty, seventy_five = 0, 5
        return np.stack([precision.mean(axis=0), precision[fifty], precision[seventy_five], recall.mean(axis=0)])


def coco_order(image_ids: Sequence[str]) -> Array:
    """(N,) place of each image in the order in which COCO's evaluators take them: by id, whole numbers by value.

    >>> coco_order(["10", "9", "2"]).tolist(), coco_order(["b", "10", "9"]).tolist()
    ([2, 1, 0], [2, 0, 1])
    """
    numeric = all(image_id.isascii() and image_id.isdigit() for image_id in image_ids)
    order = sorted(range(len(image_ids)), key=lambda n: int(image_ids[n]) if numeric else image_ids[n])
    return np.argsort(np.array(order, dtype=np.int64))


class ClassF1:
    """F1 of the mean precision and the mean recall over classes (and levels), values of 0 left out of both means.

    Source: Rex-Omni (arXiv 2510.12798); see docs/sources.md for what its released evaluator does differently.
    """

    def __init__(self, objects: Objects, matches: tuple[Array, Array], num_images: int) -> None:
        self.names = tuple(LEVELS)
        labels, row_T = np.unique(objects.target.label_O, return_inverse=True)
        self.support = np.full(len(LEVELS), len(labels))

        def counts(row: Array, image: Array) -> csr_matrix:
            return csr_matrix((np.ones(len(row)), (row, image)), shape=(len(labels), num_images))

        self.targets = counts(row_T, objects.target.image_O)
        known_P = np.isin(objects.predicted.label_O, labels)
        known = objects.predicted.select(known_P)
        row_P, (hit_LP, ignored_LP) = np.searchsorted(labels, known.label_O), matches
        self.predicted, self.hits = (
            [counts(row_P[chosen_P], known.image_O[chosen_P]) for chosen_P in chosen_LP[:, known_P]]
            for chosen_LP in (~ignored_LP, hit_LP)
        )

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (3, B), NaN without any target."""
        targets = self.targets @ weights_NB
        hits, predicted = (np.stack([level @ weights_NB for level in side]) for side in (self.hits, self.predicted))
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


def kept_by_nms(objects: Objects) -> Array:
    """NMS-AP's thinning: which predictions are left when each target keeps its best-scored prediction.

    For each target, whatever the labels, of the predictions with IoU above 0.5 the one of highest score stays (of equal
    scores the one of highest IoU, then the first emitted, which OVDEval leaves open); the others go unless another
    target keeps them. Predictions that overlap no target stay.

    Returns:
        (P,) bool.

    Source: OVDEval (Yao et al. 2023, arXiv 2308.13177), NMS-AP.
    """
    predicted, target = objects.predicted, objects.target
    keep_P, best_P = np.ones(len(predicted), dtype=bool), np.zeros(len(predicted), dtype=bool)
    score_P = objects.score_P
    # Targets in blocks that bound the number of pairs with predictions of the same image.
    most = int(max(predicted.image_O.max(initial=0), target.image_O.max(initial=0))) + 1
    load = np.cumsum(np.bincount(predicted.image_O, minlength=most)[target.image_O]) // _JOINED
    for targets in np.split(np.arange(len(load)), np.flatnonzero(np.diff(load)) + 1):
        t, p = join(target.image_O[targets], predicted.image_O)
        t = targets[t]
        iou = iou_of_pairs(predicted.box_O, target.box_O, p, t)
        near = iou > NMS_IOU
        t, p, iou = t[near], p[near], iou[near]
        order = np.lexsort((p, -iou, -score_P[p], t))
        keep_P[p] = False
        best_P[p[order[starts(t[order])]]] = True
    return keep_P | best_P
