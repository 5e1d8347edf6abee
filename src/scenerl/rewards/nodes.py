"""Rewards for objects, after the bipartite matching of answer and target (R1-SGG's node rewards)."""

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
