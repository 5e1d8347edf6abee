"""Rewards for objects, relations left aside: R1-SGG's node rewards, and those of detection."""

from __future__ import annotations

from math import exp

from scenerl.rewards.comparison import Comparison


def node_label(comparison: Comparison) -> float:
    """Label similarity of matched objects, summed and divided by the number of targets.

    Returns:
        [0, 1]; 1 where there is no target object; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), node-level reward; match as in ``Comparison.node_match``.
    """
    if comparison.failed:
        return 0.0
    if not comparison.target.objects:
        return 1.0
    similarity = comparison.similarity
    return sum([similarity(n, m) for n, m in comparison.node_match]) / len(comparison.target.objects)


def node_box(comparison: Comparison) -> float:
    """Box agreement (2 IoU + 5 exp(-L1)) / 7 of matched objects, summed and divided by the number of targets.

    L1 is the sum of the four coordinate differences of boxes scaled to [0, 1] by the image's size.

    Returns:
        [0, 1]; 1 where there is no target object; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), node-level reward, divided by 7 to stay in [0, 1].
    """
    if comparison.failed:
        return 0.0
    if not comparison.target.objects:
        return 1.0
    iou, l1 = comparison.iou, comparison.l1
    total = sum([(2.0 * iou[n][m] + 5.0 * exp(-l1(n, m))) / 7.0 for n, m in comparison.node_match])
    return total / len(comparison.target.objects)


def iou(comparison: Comparison) -> float:
    """IoU of the first box and the target: the reward of referring expressions, which have one box.

    Of several targets it is the one that the box overlaps most. Labels do not count.

    Returns:
        [0, 1]; without a target 1 where nothing is predicted, else 0; 0 for a failed parse.

    Source: VLM-R1's iou_reward (arXiv 2504.07615), which reads the first four whole numbers in brackets, gives 0 for an
    overlap of at most one pixel in width or height, and is the same otherwise.
    """
    if comparison.failed:
        return 0.0
    if not comparison.target.objects:
        return float(not comparison.num_predicted_objects)
    return max(comparison.iou[0]) if comparison.predicted.objects else 0.0


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
