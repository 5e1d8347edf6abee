"""COCO's AP family over objects, and the greedy matches behind greedy precision, recall and F1 at an IoU.

COCO's evaluators cannot weight images, which the bootstrap needs, so the accumulation is our own: the same matches and
the same 101-point curve, with a weight per image. At weights of 1 it equals faster-coco-eval and pycocotools; tests
hold it to 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scenerl.metrics.candidates import Candidates, Objects
from scenerl.metrics.columns import Array, positions

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
NAMES = ("AP", "AP50", "AP75", "AR100")
_LONGEST = 200  # rows of a curve in the bootstrap
_BLOCK = 2_000_000  # numbers in a block of a class's detections: bounds memory, and stays near the processor
_ROUNDING = 2e-5  # of recall in percent in single precision; below the step between two recalls


@dataclass(frozen=True, slots=True)
class Matches:
    """Predictions that are true positives at each of the ten IoU thresholds, (10, P), and those that do not count."""

    hit_LP: Array
    ignored_LP: Array

    def select(self, keep_P: Array) -> Matches:
        return Matches(self.hit_LP[:, keep_P], self.ignored_LP[:, keep_P])


def greedy_matches(objects: Objects) -> Matches:
    """Which predictions COCO's greedy matching makes true positives, at each of the ten IoU thresholds.

    In each image and class, predictions take in the order of their scores (emission where they are equal) the free
    target of highest IoU; of equal IoUs the later target, as COCO does. Those that take none but lie on a crowd region
    are ignored.
    """
    candidates, num_predictions = objects.coco, len(objects.image_P)
    hit_LP = np.zeros((len(IOU_THRESHOLDS), num_predictions), dtype=bool)
    lonely = np.bincount(candidates.prediction_C, minlength=num_predictions)[candidates.prediction_C] == 1
    lonely &= np.bincount(candidates.target_C, minlength=len(objects.image_T))[candidates.target_C] == 1
    hit_LP[:, candidates.prediction_C[lonely]] = candidates.iou_C[lonely] >= IOU_THRESHOLDS[:, None]
    _match_rounds(objects, candidates.select(~lonely), hit_LP)
    ignored_LP = ~hit_LP & (objects.crowd_P >= IOU_THRESHOLDS[:, None])
    return Matches(hit_LP, ignored_LP)


def _match_rounds(objects: Objects, candidates: Candidates, hit_LP: Array) -> None:
    """Match the candidates that compete. Round n takes the n-th prediction of every image and class at once."""
    p = np.unique(candidates.prediction_C)
    p = p[np.lexsort((-objects.score_P[p], objects.label_P[p], objects.image_P[p]))]
    number = objects.image_P[p] * (int(objects.label_P.max(initial=0)) + 1) + objects.label_P[p]
    round_P = np.zeros(len(hit_LP[0]), dtype=np.int64)
    round_P[p] = positions(number)
    order = np.lexsort(
        (candidates.target_C, candidates.iou_C, candidates.prediction_C, round_P[candidates.prediction_C])
    )
    candidates = candidates.select(order)
    prediction_C, target_C = candidates.prediction_C, candidates.target_C
    enough_LC = candidates.iou_C >= IOU_THRESHOLDS[:, None]
    first = np.ones(len(prediction_C), dtype=bool)
    first[1:] = np.diff(prediction_C) != 0
    taken_LT = np.zeros((len(IOU_THRESHOLDS), len(objects.image_T)), dtype=bool)
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


@dataclass(frozen=True, slots=True)
class _Class:
    """One class that has targets: its detections in COCO's order, and its targets per image."""

    image_D: Array
    hit_LD: Array
    ignored_LD: Array | None
    target_image: Array
    target_count: Array

    @property
    def images(self) -> Array:
        return np.concatenate([self.image_D, self.target_image])

    @property
    def is_long(self) -> bool:
        return bool((self.hit_LD.sum(axis=1) > _LONGEST).any())

    def add(
        self, weights_NB: Array, positives_B: Array, curve: Callable, precision_LB: Array, recall_LB: Array
    ) -> None:
        """Add average precisions and final recalls. Only rows of true positives matter: between two of them recall
        stands still and precision falls."""
        rows = np.flatnonzero(self.hit_LD.any(axis=0))
        if not len(rows):
            return
        weight_DB = weights_NB.take(self.image_D, axis=0)
        weight_RB = weight_DB.take(rows, axis=0)
        seen_RB = None if self.ignored_LD is not None else scan(np.add, weight_DB).take(rows, axis=0)
        for level, hit_D in enumerate(self.hit_LD):
            chosen = np.flatnonzero(hit_D[rows])
            if not len(chosen):
                continue
            weight_HB, last = weight_RB.take(chosen, axis=0), chosen
            if curve is _fast_curve and len(chosen) > _LONGEST:
                weight_HB, ends = _merge_rows(weight_HB)
                last = chosen[ends]
            if seen_RB is None:
                counted = weight_DB * ~self.ignored_LD[level][:, None]
                seen_HB = scan(np.add, counted).take(rows[last], axis=0)
            else:
                seen_HB = seen_RB.take(last, axis=0)
            average, final = curve(weight_HB, seen_HB, positives_B)
            precision_LB[level] += average
            recall_LB[level] += final


class CocoFamily:
    """AP, AP50, AP75 and AR100 under image weights.

    Args:
        objects: all objects; a class without any target plays no part, as in COCO.
        matches: from :func:`greedy_matches`.
        prefix: put before the metrics' names.
    """

    def __init__(self, objects: Objects, matches: Matches, prefix: str = "") -> None:
        self.names = tuple(prefix + name for name in NAMES)
        order = np.lexsort((-objects.score_P, objects.image_P, objects.label_P))
        group = objects.label_P[order] * (int(objects.image_P.max(initial=0)) + 1) + objects.image_P[order]
        kept = order[positions(group) < MAX_DETECTIONS]
        # Across images COCO sorts by score alone, stably: equal scores stay in the order of the images.
        kept = kept[np.lexsort((-objects.score_P[kept], objects.label_P[kept]))]
        labels, target_order = objects.label_P[kept], np.argsort(objects.label_T, kind="stable")
        target_labels, target_images = objects.label_T[target_order], objects.image_T[target_order]
        any_ignored = bool(matches.ignored_LP.any())
        self.classes = []
        for name in np.unique(target_labels):
            chosen = kept[np.searchsorted(labels, name, "left") : np.searchsorted(labels, name, "right")]
            own = slice(np.searchsorted(target_labels, name, "left"), np.searchsorted(target_labels, name, "right"))
            self.classes.append(
                _Class(
                    objects.image_P[chosen],
                    matches.hit_LP[:, chosen],
                    matches.ignored_LP[:, chosen] if any_ignored else None,
                    *np.unique(target_images[own], return_counts=True),
                )
            )

    @property
    def support(self) -> Array:
        """Number of classes averaged, per metric."""
        return np.full(len(NAMES), len(self.classes))

    def __call__(self, weights_NB: Array) -> Array:
        """The family under image weights: (4, B), NaN without any target.

        Weights in double precision give COCO's numbers exactly. Whole-number weights in single precision, which the
        bootstrap uses, are several times faster. They differ by rounding, by a recall point where recall falls exactly
        on one, and in classes with more than 200 true positives by reading the curve at some 200 of them (about a
        twentieth of the metric's standard error); what that moves at weights of 1 is put right.
        """
        if weights_NB.dtype != np.float32:
            return self._values(weights_NB, _exact_curve)
        return self._values(weights_NB, _fast_curve) + self._correction

    @cached_property
    def _correction(self) -> Array:
        """(4, 1): what the fast curve misses at weights of 1."""
        if not any(entry.is_long for entry in self.classes):
            return np.zeros((len(NAMES), 1))
        ones = np.ones((1 + max(int(entry.images.max(initial=0)) for entry in self.classes), 1))
        return self._values(ones, _exact_curve) - self._values(ones.astype(np.float32), _fast_curve)

    def _values(self, weights_NB: Array, curve: Callable) -> Array:
        num_samples = weights_NB.shape[1]
        precision = np.zeros((len(IOU_THRESHOLDS), num_samples))
        recall = np.zeros_like(precision)
        num_classes = np.zeros(num_samples)
        for entry in self.classes:
            step = max(1, _BLOCK // max(1, len(entry.image_D)))
            for start in range(0, num_samples, step):
                part = slice(start, start + step)
                positives_B = entry.target_count.astype(weights_NB.dtype) @ weights_NB[entry.target_image, part]
                num_classes[part] += positives_B > 0
                entry.add(weights_NB[:, part], positives_B, curve, precision[:, part], recall[:, part])
        with np.errstate(invalid="ignore"):
            precision, recall = precision / num_classes, recall / num_classes
        fifty, seventy_five = 0, 5
        return np.stack([precision.mean(axis=0), precision[fifty], precision[seventy_five], recall.mean(axis=0)])


def _merge_rows(weight_HB: Array) -> tuple[Array, Array]:
    """About 200 rows for many: the first 100 as they are, where precision moves most, the others in equal groups.

    Returns:
        The sums of the groups, and the index of each group's last row.
    """
    head = _LONGEST // 2
    size = -(-(len(weight_HB) - head) // head)
    groups = (len(weight_HB) - head) // size
    whole = head + groups * size
    sums = weight_HB[head:whole].reshape(groups, size, -1).sum(axis=1)
    ends = np.concatenate([np.arange(head), np.arange(head + size, whole + 1, size) - 1])
    if whole == len(weight_HB):
        return np.concatenate([weight_HB[:head], sums]), ends
    rest = weight_HB[whole:].sum(axis=0, keepdims=True)
    return np.concatenate([weight_HB[:head], sums, rest]), np.append(ends, len(weight_HB) - 1)


def scan(operation: np.ufunc, rows_HB: Array) -> Array:
    """``operation.accumulate`` along the first axis, in place, several times faster: whole blocks of rows at a time."""
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


def _exact_curve(weight_HB: Array, seen_HB: Array, positives_B: Array) -> tuple[Array, Array]:
    """Interpolated average precision and final recall of one class at one threshold.

    Args:
        weight_HB: weights of the H true positives. seen_HB: weight of all detections up to each of them.
        positives_B: weight of all targets.

    Returns:
        (B,) average precision over 101 recall points and (B,) recall at the end; 0 where there is no target.
    """
    found_HB = np.cumsum(weight_HB, axis=0)
    precision_HB = np.divide(found_HB, seen_HB, out=np.zeros_like(found_HB), where=seen_HB > 0)
    enclosing_HB = np.maximum.accumulate(precision_HB[::-1], axis=0)[::-1]
    recall_HB = found_HB / np.where(positives_B > 0, positives_B, np.inf)
    reached_HB = np.searchsorted(RECALL_POINTS, recall_HB.ravel(), side="right").reshape(recall_HB.shape)
    # A first true positive of weight 0 reaches recall point 0 only, and its envelope is that of the ones after it.
    newly_HB = np.diff(reached_HB, axis=0, prepend=0)
    average_B = (enclosing_HB * newly_HB).sum(axis=0) / len(RECALL_POINTS)
    return np.where(positives_B > 0, average_B, 0.0), recall_HB[-1]


def _fast_curve(weight_HB: Array, seen_HB: Array, positives_B: Array) -> tuple[Array, Array]:
    """As :func:`_exact_curve` for whole-number weights in single precision; overwrites its arguments.

    A row may also stand for several true positives, with the sum of their weights and what was seen up to the last.
    """
    found_HB = scan(np.add, weight_HB)
    share_B = np.where(positives_B > 0, 1.0 / np.maximum(positives_B, 1.0), 0.0).astype(np.float32)
    # Nothing seen means nothing found: precision 0.
    precision_HB = np.divide(found_HB, np.maximum(seen_HB, 1.0, out=seen_HB), out=seen_HB)
    final_B = found_HB[-1] * share_B
    reached_HB = np.multiply(found_HB, 100.0 * share_B, out=found_HB)
    np.floor(np.add(reached_HB, np.float32(1.0 + _ROUNDING), out=reached_HB), out=reached_HB)
    enclosing_HB = scan(np.maximum, precision_HB[::-1])[::-1]
    # Summed by parts: every fall of the envelope counts for the points reached before it.
    total_B = reached_HB[-1] * enclosing_HB[-1]
    total_B += np.einsum("hb,hb->b", reached_HB[:-1], enclosing_HB[:-1] - enclosing_HB[1:])
    return total_B / len(RECALL_POINTS), final_B


def values(objects: Objects, matches: Matches, prefix: str = "") -> dict[str, float]:
    """AP, AP50, AP75 and AR100 in [0, 1], COCO's to rounding: all areas, at most 100 detections per image and class.

    Objects without a score have score 1, so their order is the order of the images and, within an image, of emission:
    AP of answers without scores depends on that order.

    Returns:
        An empty dictionary when there is no target object.
    """
    if not len(objects.image_T):
        return {}
    num_images = int(max(objects.image_P.max(initial=0), objects.image_T.max(initial=0))) + 1
    family = CocoFamily(objects, matches, prefix)
    return dict(zip(family.names, family(np.ones((num_images, 1)))[:, 0].tolist(), strict=True))
