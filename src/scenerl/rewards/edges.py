"""Rewards for the recall of relations: which target triplets are in the answer.

All of them reward more relations and never charge for wrong ones; see :mod:`scenerl.rewards.density` for the others.
"""

from __future__ import annotations

from scenerl.rewards.comparison import Comparison, assign_relations
from scenerl.similarity import exact


def hard_recall(comparison: Comparison) -> float:
    """Share of target triplets in the answer: three labels equal, both boxes IoU at the threshold or above.

    One predicted relation may serve several targets, as in the paper's code; ``one_to_one`` forbids it.

    Returns:
        [0, 1]; 1 where there is no target relation; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), Hard Recall.
    """
    if comparison.failed:
        return 0.0
    num_targets = len(comparison.target.relations)
    if num_targets == 0:
        return 1.0
    if comparison.options.one_to_one:
        return len(comparison.triplet_match) / num_targets
    return sum(1 for fits in comparison.fits if fits) / num_targets


def relaxed_recall(comparison: Comparison) -> float:
    """Mean over target triplets of the best product of three label similarities among predictions with fitting boxes.

    With exact similarity this is Hard Recall. ``one_to_one`` assigns each predicted relation to one target, for the
    largest sum.

    Returns:
        [0, 1]; 1 where there is no target relation; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), Hard Recall + Relax.
    """
    if comparison.failed:
        return 0.0
    targets = comparison.target.relations
    if not targets:
        return 1.0
    if comparison.options.similarity is exact:
        return hard_recall(comparison)  # the same number, already known
    similarity, predicate_similarity = comparison.similarity, comparison.options.similarity
    relations = comparison.predicted.relations
    values: list[dict[int, float]] = []  # of every candidate of every target relation
    for wanted, candidates in zip(targets, comparison.candidates, strict=True):
        own = {}
        for r in candidates:
            relation = relations[r]
            ends = similarity(relation.subject, wanted.subject) * similarity(relation.object, wanted.object)
            own[r] = ends and ends * predicate_similarity(relation.predicate, wanted.predicate)
        values.append(own)
    if comparison.options.one_to_one:
        return sum(values[t][r] for r, t in assign_relations(values)) / len(targets)
    return sum(max(own.values(), default=0.0) for own in values) / len(targets)


def soft_recall(comparison: Comparison) -> float:
    """Mean over target relations of sim(subject) sim(object) sim(predicate), boxes only through the node match.

    A target relation scores when a relation is predicted between the two predicted objects that are matched to its
    ends; of several, the best counts. Objects with the same label and box count as one, so that it does not matter
    which of them the match took.

    Returns:
        [0, 1]; 1 where there is no target relation; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), Soft Recall.
    """
    if comparison.failed:
        return 0.0
    targets = comparison.target.relations
    if not targets:
        return 1.0
    if not comparison.predicted.relations:
        return 0.0
    similarity, predicate_similarity = comparison.similarity, comparison.options.similarity
    predicted_first, target_first = comparison.duplicates
    partners: dict[int, set[int]] = {}
    for n, m in comparison.node_match:
        partners.setdefault(target_first[m], set()).add(predicted_first[n])
    predicates: dict[tuple[int, int], list[str]] = {}
    for relation in comparison.predicted.relations:
        ends = predicted_first[relation.subject], predicted_first[relation.object]
        predicates.setdefault(ends, []).append(relation.predicate)
    total = 0.0
    for wanted in targets:
        best = 0.0
        objects = partners.get(target_first[wanted.object], ())
        for s in partners.get(target_first[wanted.subject], ()):
            for o in objects:
                if ends := (s, o) in predicates and similarity(s, wanted.subject) * similarity(o, wanted.object):
                    for name in predicates[s, o]:
                        best = max(best, ends * predicate_similarity(name, wanted.predicate))
        total += best
    return total / len(targets)


def predicate_weighted_recall(comparison: Comparison) -> float:
    """Hard Recall with every target relation weighted by its predicate, so that rare predicates pay.

    The weights are ``predicate_weights`` of the options, usually from
    :func:`scenerl.rewards.options.inverse_frequency_weights`; a predicate that is not among them weighs as much as the
    heaviest. Without weights this is Hard Recall.

    Returns:
        [0, 1]; 1 where there is no target relation; 0 for a failed parse.

    Source: the frequency weighting of SGG-R3 (arXiv 2603.07961) on R1-SGG's Hard Recall.
    """
    weights = comparison.options.predicate_weights
    if comparison.failed or not weights or not comparison.target.relations:
        return hard_recall(comparison)
    heaviest = max(weights.values())
    weight_of = [weights.get(relation.predicate, heaviest) for relation in comparison.target.relations]
    if comparison.options.one_to_one:
        gained = sum(weight_of[t] for _, t in comparison.triplet_match)
    else:
        gained = sum(weight for weight, fits in zip(weight_of, comparison.fits, strict=True) if fits)
    return min(gained / sum(weight_of), 1.0)  # the two sums run in different orders
