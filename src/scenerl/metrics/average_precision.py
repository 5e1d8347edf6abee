"""COCO's AP family over objects, and the greedy matches behind greedy precision, recall and F1 at an IoU.

The values come from a maintained COCO evaluator (faster-coco-eval). The evaluator cannot weight images, so the
bootstrap has its own accumulation: the same matches and the same 101-point curve, with a weight per image. At weights
of 1 both agree to rounding; tests hold them to 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from scenerl.boxes import area, xyxy_to_xywh
from scenerl.matching import greedy
from scenerl.metrics.candidates import Array, Objects

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
NAMES = ("AP", "AP50", "AP75", "AR100")


def greedy_matches(objects: Objects) -> Array:
    """Which predictions COCO's greedy matching makes true positives, at each of the ten IoU thresholds.

    In each image and class, predictions take in the order of their scores (emission where they are equal) the free
    target of highest IoU; of equal IoUs the later target, as COCO does.

    Returns:
        (10, P) bool.
    """
    candidates = objects.coco
    hit_TP = np.zeros((len(IOU_THRESHOLDS), len(objects.image_P)), dtype=bool)
    lonely = np.bincount(candidates.prediction_C, minlength=len(objects.image_P))[candidates.prediction_C] == 1
    lonely &= np.bincount(candidates.target_C, minlength=len(objects.image_T))[candidates.target_C] == 1
    hit_TP[:, candidates.prediction_C[lonely]] = candidates.iou_C[lonely] >= IOU_THRESHOLDS[:, None]
    for predictions, iou_NM in _contested(objects, ~lonely):
        for level, threshold in enumerate(IOU_THRESHOLDS):
            # Reversed columns: `greedy` breaks ties towards the first target, COCO towards the last.
            matched, _ = greedy(iou_NM[:, ::-1], threshold)
            hit_TP[level, predictions[matched]] = True
    return hit_TP


def _contested(objects: Objects, keep_C: Array) -> Iterator[tuple[Array, Array]]:
    """Per image and class the predictions, best first, and the IoU matrix of the chosen candidates (-1 elsewhere)."""
    candidates = objects.coco.select(keep_C)
    p, t = candidates.prediction_C, candidates.target_C
    order = np.lexsort((t, p, -objects.score_P[p], objects.label_P[p], objects.image_P[p]))
    p, t, iou = p[order], t[order], candidates.iou_C[order]
    if not len(p):
        return
    change = (np.diff(objects.image_P[p]) != 0) | (np.diff(objects.label_P[p]) != 0)
    bounds = [0, *(np.flatnonzero(change) + 1).tolist(), len(p)]
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        group = slice(start, stop)
        # Candidates of one prediction stand together and in rank order, so first occurrences give the ranking.
        _, first = np.unique(p[group], return_index=True)
        ranked = p[group][np.sort(first)]
        targets = np.unique(t[group])
        matrix = np.full((len(ranked), len(targets)), -1.0)
        row_of = {int(prediction): row for row, prediction in enumerate(ranked)}
        rows = [row_of[prediction] for prediction in p[group].tolist()]
        matrix[rows, np.searchsorted(targets, t[group])] = iou[group]
        yield ranked, matrix


@dataclass(frozen=True, slots=True)
class _Class:
    """One class that has targets: its detections in COCO's order, and its targets per image."""

    image_D: Array
    hit_TD: Array
    target_image: Array
    target_count: Array


class CocoFamily:
    """AP, AP50, AP75 and AR100 under image weights.

    Args:
        objects: all objects; a class without any target plays no part, as in COCO.
        hit_TP: (10, P) from :func:`greedy_matches`.
    """

    names = NAMES

    def __init__(self, objects: Objects, hit_TP: Array) -> None:
        order = np.lexsort((np.arange(len(objects.image_P)), -objects.score_P, objects.image_P, objects.label_P))
        label, image = objects.label_P[order], objects.image_P[order]
        new_group = np.ones(len(order), dtype=bool)
        new_group[1:] = (np.diff(label) != 0) | (np.diff(image) != 0)
        start = np.maximum.accumulate(np.where(new_group, np.arange(len(order)), 0))
        kept = order[np.arange(len(order)) - start < MAX_DETECTIONS]
        # Across images COCO sorts by score alone, stably: equal scores stay in the order of the images.
        kept = kept[np.lexsort((np.arange(len(kept)), -objects.score_P[kept], objects.label_P[kept]))]
        sorted_labels = objects.label_P[kept]
        self.classes = []
        for name in np.unique(objects.label_T):
            low, high = np.searchsorted(sorted_labels, name, "left"), np.searchsorted(sorted_labels, name, "right")
            chosen = kept[low:high]
            images, counts = np.unique(objects.image_T[objects.label_T == name], return_counts=True)
            self.classes.append(_Class(objects.image_P[chosen], hit_TP[:, chosen], images, counts))

    @property
    def support(self) -> Array:
        """Number of classes averaged, per metric."""
        return np.full(len(NAMES), len(self.classes))

    def __call__(self, weights_NB: Array) -> Array:
        """The family under image weights: (4, B), NaN without any target."""
        num_samples = weights_NB.shape[1]
        precision = np.zeros((len(IOU_THRESHOLDS), num_samples))
        recall = np.zeros_like(precision)
        num_classes = np.zeros(num_samples)
        for entry in self.classes:
            positives_B = entry.target_count @ weights_NB[entry.target_image]
            num_classes += positives_B > 0
            weight_DB = weights_NB[entry.image_D]
            seen_DB = np.cumsum(weight_DB, axis=0)
            for level, hit_D in enumerate(entry.hit_TD):
                where = np.flatnonzero(hit_D)
                if len(where):
                    average, final = _curve(weight_DB[where], seen_DB[where], positives_B)
                    precision[level] += average
                    recall[level] += final
        with np.errstate(invalid="ignore"):
            precision, recall = precision / num_classes, recall / num_classes
        fifty, seventy_five = 0, 5
        return np.stack([precision.mean(axis=0), precision[fifty], precision[seventy_five], recall.mean(axis=0)])


def _curve(weight_HB: Array, seen_HB: Array, positives_B: Array) -> tuple[Array, Array]:
    """Interpolated average precision and final recall of one class at one threshold.

    Only true positives matter: between two of them recall stands still and precision falls.

    Args:
        weight_HB: weights of the H true positives. seen_HB: weight of all detections up to each of them.
        positives_B: weight of all targets.

    Returns:
        (B,) average precision over 101 recall points and (B,) recall at the end; 0 where there is no target.
    """
    found_HB = np.cumsum(weight_HB, axis=0)
    precision_HB = np.divide(found_HB, seen_HB, out=np.zeros_like(found_HB), where=seen_HB > 0)
    envelope_HB = np.maximum.accumulate(precision_HB[::-1], axis=0)[::-1]
    recall_HB = found_HB / np.where(positives_B > 0, positives_B, np.inf)
    reached_HB = np.searchsorted(RECALL_POINTS, recall_HB.ravel(), side="right").reshape(recall_HB.shape)
    # A first true positive of weight 0 reaches recall point 0 only, and its envelope is that of the ones after it.
    newly_HB = np.diff(reached_HB, axis=0, prepend=0)
    average_B = (envelope_HB * newly_HB).sum(axis=0) / len(RECALL_POINTS)
    return np.where(positives_B > 0, average_B, 0.0), recall_HB[-1]


def coco_values(objects: Objects, num_images: int) -> dict[str, float]:
    """AP, AP50, AP75 and AR100 from the COCO evaluator, in [0, 1].

    All areas, at most 100 detections per image and class. Objects without a score have score 1, so their order is the
    order of the images and, within an image, of emission: AP of answers without scores depends on that order.

    Returns:
        An empty dictionary when there is no target object.
    """
    if not len(objects.image_T):
        return {}
    if not len(objects.image_P):
        return dict.fromkeys(NAMES, 0.0)
    # Ids start at 1: the evaluator takes a match with id 0 for no match.
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image + 1} for image in range(num_images)],
        "categories": [{"id": int(label) + 1} for label in np.unique(objects.label_T)],
        "annotations": [
            {"id": n + 1, "image_id": image + 1, "category_id": label + 1, "bbox": box, "area": size, "iscrowd": 0}
            for n, (image, label, box, size) in enumerate(_rows(objects.image_T, objects.label_T, objects.box_T))
        ],
    }
    truth.createIndex()
    known = np.isin(objects.label_P, objects.label_T)
    if not known.any():
        return dict.fromkeys(NAMES, 0.0)
    columns = _rows(objects.image_P[known], objects.label_P[known], objects.box_P[known])
    predictions = truth.loadRes(
        [
            {"image_id": image + 1, "category_id": label + 1, "bbox": box, "score": score}
            for (image, label, box, _), score in zip(columns, objects.score_P[known].tolist(), strict=True)
        ]
    )
    evaluator = COCOeval_faster(truth, predictions, iouType="bbox")
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0.0, 1e10]], ["all"]
    evaluator.params.maxDets = [MAX_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])
    return {
        "AP": float(precision[precision > -1].mean()),
        "AP50": float(precision[0][precision[0] > -1].mean()),
        "AP75": float(precision[5][precision[5] > -1].mean()),
        "AR100": float(recall[recall > -1].mean()),
    }


def _rows(image: Array, label: Array, boxes: Array) -> Iterator[tuple[int, int, list[float], float]]:
    return zip(image.tolist(), label.tolist(), xyxy_to_xywh(boxes).tolist(), area(boxes).tolist(), strict=True)
