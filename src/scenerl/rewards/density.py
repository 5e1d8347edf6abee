"""Rewards against density hacking: recall alone rewards long answers, these charge for what is wrong in them.

Elements that the parser dropped count as predictions that match nothing, or writing junk would cost nothing.
"""

from __future__ import annotations

from scenerl.rewards.comparison import Comparison

_PHRASE_WORDS = 6
# An answer that failed to parse may be of any length; its beginning shows whether it repeats itself.
_MAX_CHARACTERS = 100_000
_REPEATED = ("duplicate_id", "duplicate_relation", "too_many")


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
    num_predicted, num_targets = comparison.num_predicted_relations, len(comparison.target.relations)
    if not num_predicted or not num_targets:
        return 0.0 if num_predicted or num_targets else 1.0
    weight = beta * beta
    return (1.0 + weight) * len(comparison.triplet_match) / (num_predicted + weight * num_targets)


def hallucination(comparison: Comparison) -> float:
    """Share of predicted objects and relations that are matched to nothing. A penalty: give it a negative weight.

    Objects are matched as in `weighted_sum`, relations as in `triplet_precision`, both one-to-one, so a second box on
    the same target counts as unmatched. Boxes on crowd regions do not count.

    Returns:
        [0, 1], 0 is best; nothing predicted: 0; a failed parse: 1, the worst value, as 0 would make failing pay better
        than a first clumsy answer.
    """
    if comparison.failed:
        return 1.0
    num_predicted = comparison.num_counted_objects + comparison.num_predicted_relations
    if num_predicted == 0:
        return 0.0
    num_matched = len(comparison.detection_match) + len(comparison.triplet_match)
    return 1.0 - num_matched / num_predicted


def box_count(comparison: Comparison) -> float:
    """The smaller of the numbers of predicted and target objects over the larger, wherever the boxes are.

    Objects that the parser dropped count in the larger number only, those on crowd regions in neither.

    Returns:
        [0, 1]; both empty: 1; only one of them empty: 0; 0 for a failed parse.
    """
    if comparison.failed:
        return 0.0
    num_kept = len(comparison.predicted.objects) - len(comparison.ignored)
    num_targets = len(comparison.target.objects)
    most = max(comparison.num_counted_objects, num_targets)
    return min(num_kept, num_targets) / most if most else 1.0


def repetition(comparison: Comparison) -> float:
    """Minus the share of repeated parts: (different parts / parts) - 1.

    The parts of a parsed answer are its objects (label and box) and relations. Elements that the parser dropped are
    parts too, different where their excerpts are; those dropped as duplicates or as too many count as repeated. The
    parts of a text without objects are its phrases of six words, lower-cased.

    Returns:
        [-1, 0], 0 is best; no parts, or fewer than six words: 0.

    Source: Demystifying Long CoT (arXiv 2502.03373), appendix C.2, with VLM-R1's parts; relations are ours.
    """
    graph = comparison.predicted
    if comparison.num_predicted_objects:
        first = comparison.duplicates[0]
        parts: list = first + [(first[edge.subject], edge.predicate, first[edge.object]) for edge in graph.relations]
        parts += [
            issue.detail
            for issue in comparison.result.issues
            if issue.kind not in _REPEATED and issue.num_objects + issue.num_relations
        ]
        num_parts = comparison.num_predicted_objects + comparison.num_predicted_relations
    else:
        words = (comparison.text or "")[:_MAX_CHARACTERS].lower().split()
        parts = list(zip(*(words[start:] for start in range(_PHRASE_WORDS)), strict=False))
        num_parts = len(parts)
    return len(set(parts)) / num_parts - 1.0 if num_parts else 0.0
