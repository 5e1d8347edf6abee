"""Rewards against density hacking: recall alone pays for saying everything, these charge for the rest."""

from __future__ import annotations

from scenerl.rewards.comparison import Comparison

_PHRASE_WORDS = 6
# An answer that failed to parse may be of any length; its beginning shows well enough whether it repeats itself.
_READ_CHARACTERS = 100_000
_DUPLICATES = ("duplicate_id", "duplicate_relation")


def triplet_precision(comparison: Comparison) -> float:
    """Share of predicted triplets that hit a target triplet of their own: labels equal, both boxes above the threshold.

    Returns:
        [0, 1]; no predicted relation: 1 if there is no target relation either, else 0; 0 for a failed parse.
    """
    return _f_beta(comparison, 0.0)


def triplet_f_beta(comparison: Comparison) -> float:
    """F measure of triplet precision and recall, one-to-one, with ``beta`` of the options.

    (1 + β²) hits / (predictions + β² targets): β above 1 weighs recall more, below 1 precision.

    Returns:
        [0, 1]; neither predicted nor target relations: 1; only one of them: 0; 0 for a failed parse.

    Source: the precision and F1 rewards of SceneGraphVLM (arXiv 2605.13667), on R1-SGG's hits.
    """
    return _f_beta(comparison, comparison.options.beta)


def triplet_f1(comparison: Comparison) -> float:
    """As :func:`triplet_f_beta`, with beta 1 whatever the options say."""
    return _f_beta(comparison, 1.0)


def _f_beta(comparison: Comparison, beta: float) -> float:
    if comparison.failed:
        return 0.0
    num_predicted, num_targets = len(comparison.predicted.relations), len(comparison.target.relations)
    if not num_predicted or not num_targets:
        return 0.0 if num_predicted or num_targets else 1.0
    weight = beta * beta
    return (1.0 + weight) * len(comparison.triplet_match) / (num_predicted + weight * num_targets)


def hallucination(comparison: Comparison) -> float:
    """Share of predicted objects and relations that are matched to nothing. A penalty: give it a negative weight.

    Objects are matched as in `weighted_sum`, relations as in `triplet_precision`, both one-to-one, so a second box on
    the same target counts as unmatched.

    Returns:
        [0, 1], 0 is best; nothing predicted: 0; a failed parse: 1, the worst value, as 0 would make failing pay better
        than a first clumsy answer.
    """
    if comparison.failed:
        return 1.0
    num_predicted = len(comparison.predicted.objects) + len(comparison.predicted.relations)
    if num_predicted == 0:
        return 0.0
    num_matched = len(comparison.detection_match) + len(comparison.triplet_match)
    return 1.0 - num_matched / num_predicted


def box_count(comparison: Comparison) -> float:
    """The smaller of the numbers of predicted and target objects over the larger, wherever the boxes are.

    Returns:
        [0, 1]; both empty: 1; only one of them empty: 0; 0 for a failed parse.
    """
    if comparison.failed:
        return 0.0
    num_predicted, num_targets = len(comparison.predicted.objects), len(comparison.target.objects)
    if num_predicted == num_targets:
        return 1.0
    return min(num_predicted, num_targets) / max(num_predicted, num_targets)


def repetition(comparison: Comparison) -> float:
    """Minus the share of repeated parts: (different parts / parts) - 1.

    The parts of a parsed answer are its objects (label and box) and relations; elements that the parser dropped as
    duplicates count as repeated. The parts of a text without such elements are its phrases of six words, lower-cased.

    Returns:
        [-1, 0], 0 is best; no parts, or fewer than six words: 0.

    Source: Demystifying Long CoT (arXiv 2502.03373), appendix C.2, with VLM-R1's parts; relations are ours.
    """
    graph = comparison.predicted
    num_dropped = sum(1 for issue in comparison.result.issues if issue.kind in _DUPLICATES)
    if graph.objects:
        twins = comparison.predicted_twins
        parts: list = twins + [(twins[edge.subject], edge.predicate, twins[edge.object]) for edge in graph.relations]
    else:
        words = (comparison.text or "")[:_READ_CHARACTERS].lower().split()
        parts = list(zip(*(words[start:] for start in range(_PHRASE_WORDS)), strict=False))
        num_dropped = 0
    if not parts:
        return 0.0
    return len(set(parts)) / (len(parts) + num_dropped) - 1.0
