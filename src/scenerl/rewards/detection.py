"""Rewards for detection: the objects of an answer against the target's, relations left aside."""

from __future__ import annotations

from scenerl.rewards.comparison import Comparison


def ap(comparison: Comparison) -> float:
    """COCO's average precision over IoU .50:.05:.95 of one image, all scores 1, predictions in order of emission.

    The mean over the labels of the target. A predicted label that the target lacks costs nothing, as in COCO, and
    neither does a box that the parser dropped; `od_length` charges for both. Equal scores make AP depend on the order
    of emission: within a label, a wrong box costs more the earlier it comes. Equals pycocotools to rounding.

    Returns:
        [0, 1]; both empty: 1; only one of them empty: 0; 0 for a failed parse, even against an empty target.

    Source: COCO's evaluation (Lin et al. 2014); as a reward VLM-R1 (arXiv 2504.07615).
    """
    values = _average_precisions(comparison)
    return sum(values) / len(values)


def ap50(comparison: Comparison) -> float:
    """As :func:`ap`, at IoU 0.5 only."""
    return _average_precisions(comparison)[0]


def _average_precisions(comparison: Comparison) -> list[float]:
    if comparison.failed or not comparison.predicted.objects or not comparison.target.objects:
        return [_value_of_empty(comparison)]
    return comparison.average_precisions


def od_length(comparison: Comparison) -> float:
    """`ap` times min(1, targets / predictions): more boxes than targets cost, those that the parser dropped included.

    Returns:
        [0, 1]; the empty cases are those of :func:`ap`.

    Source: VLM-R1 (arXiv 2504.07615), odLength.
    """
    num_predicted, num_targets = comparison.num_predicted_objects, len(comparison.target.objects)
    return ap(comparison) * (min(1.0, num_targets / num_predicted) if num_predicted else 1.0)


def weighted_sum(comparison: Comparison) -> float:
    """0.7 Σ matched IoU / targets + 0.3 (1 - (miss rate + false alarm rate) / 2).

    Objects with equal labels are matched greedily, the highest IoU first, at the IoU threshold or above. Misses are
    unmatched targets, false alarms unmatched predictions, those that the parser dropped included.

    Returns:
        [0, 1]; both empty: 1; only one of them empty: 0; 0 for a failed parse, even against an empty target.

    Source: VLM-R1's detection score. There a pair of different labels may be matched, for an IoU of 0; here it is not.
    """
    num_predicted, num_targets = comparison.num_predicted_objects, len(comparison.target.objects)
    if comparison.failed or not num_predicted or not num_targets:
        return _value_of_empty(comparison)
    match = comparison.detection_match
    position = sum(comparison.iou[n][m] for n, m in match) / num_targets
    miss_rate, false_alarm_rate = 1.0 - len(match) / num_targets, 1.0 - len(match) / num_predicted
    return 0.7 * position + 0.3 * (1.0 - (miss_rate + false_alarm_rate) / 2.0)


def _value_of_empty(comparison: Comparison) -> float:
    """1 where nothing was predicted and nothing was there, else 0; a failed parse is not an empty prediction."""
    return 0.0 if comparison.failed or comparison.num_predicted_objects or comparison.target.objects else 1.0
