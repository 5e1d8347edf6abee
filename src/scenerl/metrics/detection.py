"""COCO's AP family, OVDEval's NMS-AP, and greedy precision, recall and F1 at an IoU.

COCO's evaluators cannot weight images, which the bootstrap needs, so the accumulation is our own: the same matches and
the same 101-point curve, with a weight per image. At weights of 1 it equals faster-coco-eval and pycocotools; tests
hold it to 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix

from scenerl.boxes import as_boxes, iou_matrix, iou_of_pairs
from scenerl.metrics.arrays import Array, Objects, join, per_image, positions, sort_stably, starts
from scenerl.metrics.precision import RatioMetrics
from scenerl.metrics.protocols import Pair

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_ROUNDING = 1e-9  # of recall in percent; far below the step between two recalls
# COCO's points are floating-point numbers, some of them above the hundredth that they stand for: a recall of exactly
# that hundredth does not reach them.
_LATE = np.where(np.arange(101) / 100 < RECALL_POINTS, 2 * _ROUNDING, 0.0)
MAX_DETECTIONS = 100
NAMES = ("AP", "AP50", "AP75", "AR100")
LEVELS = {"F1@0.5": (0,), "F1@0.95": (9,), "F1_mean": tuple(range(10))}
"""Metric to the IoU levels of .50:.05:.95 that it averages over."""
NMS_IOU = ACCURACY_IOU = 0.5
_BLOCK = 2**14  # numbers in a block of a class's rows that stay in the processor's cache
_COLUMNS, _LARGEST = 128, 5_000_000  # least number of columns at a time; numbers in an array, which bounds memory
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
    has_candidate_P = np.zeros(len(objects.predicted), dtype=bool)
    has_candidate_P[candidates.prediction_C] = True
    p = by_class_and_image(objects, objects.order_P[has_candidate_P[objects.order_P]])
    round_P = np.zeros(len(objects.predicted), dtype=np.int64)
    round_P[p] = positions(objects.predicted.keys[p])
    # By round, prediction, IoU and target; they stand by prediction and target, and most are their prediction's only.
    first = starts(candidates.prediction_C)
    several = np.flatnonzero(~first | ~np.append(first[1:], True))
    order = np.arange(len(first))
    order[several] = several[np.lexsort((candidates.iou_C[several], candidates.prediction_C[several]))]
    candidates = candidates.select(order[sort_stably(round_P[candidates.prediction_C[order]])])
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


def by_class_and_image(objects: Objects, p: Array) -> Array:
    """Indices of predictions with those of one class and image together; otherwise their order stays."""
    p = p[sort_stably(objects.predicted.label_O[p])]
    return p[sort_stably(objects.predicted.image_O[p])]


def add_accuracy(ratios: RatioMetrics, pairs: Sequence[Pair]) -> None:
    """Accuracy of referring expressions: the share of images whose first box has an IoU of 0.5 or more with the target.

    The first box is that of the highest score, the earliest of equal ones, whatever its label. Only where every image
    has a query of one label and one target.
    """
    if not pairs or not all(len(pair.query or ()) == len(pair.target.objects) == 1 for pair in pairs):
        return
    hits = []
    for pair in pairs:
        objects = pair.result.graph.objects if pair.result.graph is not None else ()
        first = max(objects, key=lambda item: 1.0 if item.score is None else item.score, default=None)
        boxes = [] if first is None else [first.box]
        iou = iou_matrix(as_boxes(boxes), as_boxes([pair.target.objects[0].box]))
        hits.append(float(iou.max(initial=0.0) >= ACCURACY_IOU))
    ratios.add("Acc@0.5", np.array(hits))


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


class _Class:
    """One class that has targets. Only the last true positive of a run matters, R rows in all: within the run precision
    rises, and from there to the next one recall stands still.

    Args:
        image_D: image of each detection, in COCO's order. hit_LD, ignored_LD: from :func:`greedy_matches`.
        target_image, target_count: images with targets, and how many.
        num_images: N.
    """

    def __init__(
        self,
        image_D: Array,
        hit_LD: Array,
        ignored_LD: Array,
        target_image: Array,
        target_count: Array,
        num_images: int,
    ) -> None:
        self.image_D, self.hit_LD, self.ignored_LD = image_D, hit_LD, ignored_LD
        self.target_image, self.target_count = target_image, target_count.astype(float)
        self.num_images = num_images
        self.last_LD = hit_LD.copy()
        self.last_LD[:, :-1] &= ~hit_LD[:, 1:]
        self.rows = np.flatnonzero(self.last_LD.any(axis=0))

    def precision_and_recall(self, weights_NB: Array) -> tuple[Array, Array, Array]:
        """(L, B) average precision and recall at the end, and (B,) the weight of the targets."""
        positives_B = self.target_count @ weights_NB[self.target_image]
        average_LB, final_LB = np.zeros((2, len(self.hit_LD), weights_NB.shape[1]))
        if not len(self.rows):
            return average_LB, final_LB, positives_B
        if weights_NB.shape[1] == 1:
            average_LB[:, 0], final_LB[:, 0] = self._of_weights(weights_NB[self.image_D, 0], positives_B)
            return average_LB, final_LB, positives_B
        seen = [accumulate(np.add, counts @ weights_NB) for counts in self._seen]
        for level, (image_H, last, rows) in enumerate(self._hits):
            if len(rows):
                found_HB = accumulate(np.add, weights_NB.take(image_H, axis=0))
                seen_RB = seen[level if len(seen) > 1 else 0]
                average_LB[level], final_LB[level] = average_precision(
                    found_HB.take(last, axis=0), seen_RB.take(rows, axis=0), positives_B
                )
        return average_LB, final_LB, positives_B

    def _of_weights(self, weight_D: Array, positives_B: Array) -> tuple[Array, Array]:
        """(L,) average precision and final recall under one weight per detection: all levels at once."""
        hits = np.flatnonzero(self.hit_LD.any(axis=0))
        found_LH = np.cumsum(self.hit_LD[:, hits] * weight_D[hits], axis=1)
        counted = weight_D * ~self.ignored_LD if self.ignored_LD.any() else weight_D[None]
        seen_LR = np.cumsum(counted, axis=1)[:, self.rows]
        found_LR = found_LH[:, np.searchsorted(hits, self.rows)]
        seen_LR = np.broadcast_to(seen_LR, found_LR.shape)
        return average_precision(found_LR.T, seen_LR.T, np.repeat(positives_B, len(found_LR)))

    @cached_property
    def _seen(self) -> list[csr_matrix]:
        """(R, N) number of detections of each image since the row before; one for each level where some are ignored."""
        row_D = np.searchsorted(self.rows, np.arange(len(self.image_D)))
        inside_D, shape = row_D < len(self.rows), (len(self.rows), self.num_images)
        levels = [inside_D & ~ignored_D for ignored_D in self.ignored_LD] if self.ignored_LD.any() else [inside_D]
        return [csr_matrix((np.ones(d.sum()), (row_D[d], self.image_D[d])), shape=shape) for d in levels]

    @cached_property
    def _hits(self) -> list[tuple[Array, Array, Array]]:
        """For each level the images of its true positives, which of these end a run, and the rows that these are."""
        return [
            (self.image_D[hit_D], np.flatnonzero(last_D[hit_D]), np.flatnonzero(last_D[self.rows]))
            for hit_D, last_D in zip(self.hit_LD, self.last_LD, strict=True)
        ]


def average_precision(found_RB: Array, seen_RB: Array, positives_B: Array) -> tuple[Array, Array]:
    """Interpolated average precision and final recall of one class at one threshold.

    Args:
        found_RB: whole-number weight of the true positives up to each of R rows. seen_RB: of all detections.
        positives_B: of all targets.

    Returns:
        (B,) average precision over 101 recall points and (B,) recall at the end; 0 where there is no target.
    """
    percent_B = 100.0 / np.maximum(positives_B, 1.0)
    total_B, highest_B = np.zeros((2, len(positives_B)))
    step = max(1, _BLOCK // len(positives_B))
    for stop in range(len(found_RB), 0, -step):  # from the end, as precision is the highest from a row on
        start = max(0, stop - step)
        # The last recall point that each row reaches: that of its whole percents, but for the one before where that is
        # late. Before the first row none is reached.
        point_RB = found_RB[max(0, start - 1) : stop] * percent_B
        point_RB += _ROUNDING
        point_RB -= _LATE.take(point_RB.astype(np.intp))
        np.floor(point_RB, out=point_RB)
        before_RB = point_RB[:-1] if start else np.vstack([np.full_like(total_B, -1.0), point_RB[:-1]])
        points_RB = point_RB[-(stop - start) :] - before_RB
        # Nothing seen means nothing found: precision 0.
        highest_RB = found_RB[start:stop] / np.maximum(seen_RB[start:stop], 1.0)
        np.maximum(highest_RB[-1], highest_B, out=highest_RB[-1])
        accumulate(np.maximum, highest_RB[::-1])
        highest_B = highest_RB[0]
        points_RB *= highest_RB
        total_B += points_RB.sum(axis=0)
    average_B = np.where(positives_B > 0, total_B / len(RECALL_POINTS), 0.0)
    return average_B, found_RB[-1] / np.maximum(positives_B, 1.0)


def accumulate(operation: np.ufunc, rows_RB: Array) -> Array:
    """``operation.accumulate`` along the first axis, in place; of many columns three times faster, row by row."""
    if rows_RB.shape[1] < _COLUMNS:
        return operation.accumulate(rows_RB, axis=0, out=rows_RB)
    for before, row in pairwise(rows_RB):
        operation(before, row, out=row)
    return rows_RB


class CocoMetrics:
    """AP, AP50, AP75 and AR100 under image weights.

    Args:
        objects: all objects; a class without any target plays no part, as in COCO.
        matches: from :func:`greedy_matches`.
        num_images: N.
        prefix: put before the metrics' names.
    """

    def __init__(self, objects: Objects, matches: tuple[Array, Array], num_images: int, prefix: str = "") -> None:
        self.names = tuple(prefix + name for name in NAMES)
        predicted, target = objects.predicted, objects.target
        order = by_class_and_image(objects, objects.order_P)
        looked_at_P = np.zeros(len(predicted), dtype=bool)
        looked_at_P[order[positions(predicted.keys[order]) < MAX_DETECTIONS]] = True
        kept = objects.order_P[looked_at_P[objects.order_P]]
        kept = kept[sort_stably(predicted.label_O[kept])]
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
                    num_images=num_images,
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
            step = max(_COLUMNS, _LARGEST // max(1, len(entry.image_D)))
            for start in range(0, num_samples, step):
                part = slice(start, start + step)
                average, final, positives_B = entry.precision_and_recall(np.ascontiguousarray(weights_NB[:, part]))
                precision[:, part] += average
                recall[:, part] += final
                num_classes[part] += positives_B > 0
        with np.errstate(invalid="ignore"):
            precision, recall = precision / num_classes, recall / num_classes
        fifty, seventy_five = 0, 5
        return np.stack([precision.mean(axis=0), precision[fifty], precision[seventy_five], recall.mean(axis=0)])


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
        near = np.flatnonzero(iou > NMS_IOU)
        t, p, iou = t[near], p[near], iou[near]
        keep_P[p] = False
        best = is_best(score_P[p], t)
        t, p, iou = t[best], p[best], iou[best]
        best = is_best(iou, t)
        t, p = t[best], p[best]
        best_P[p[starts(t)]] = True
    return keep_P | best_P


def is_best(value_C: Array, group_C: Array) -> Array:
    """(C,) bool: whether no value of the same group is higher; groups stand together."""
    first = starts(group_C)
    highest = np.maximum.reduceat(value_C, np.flatnonzero(first)) if len(first) else value_C
    return value_C == highest[np.cumsum(first) - 1]
