"""A slow, straightforward second implementation of the metrics, for comparison. It shares no code with the package."""

from __future__ import annotations

import itertools


def iou(a, b, extra=0.0):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    if width <= 0 or height <= 0:
        return 0.0

    def size(box):
        return (box[2] - box[0] + extra) * (box[3] - box[1] + extra)

    overlap = width * height
    return overlap / (size(a) + size(b) - overlap)


def objects_agree(a, b, extra=0.0):
    return a.label == b.label and iou(a.box, b.box, extra) >= 0.5


def relations_agree(graph, relation, target, other, extra=0.0):
    return (
        relation.predicate == other.predicate
        and objects_agree(graph.objects[relation.subject], target.objects[other.subject], extra)
        and objects_agree(graph.objects[relation.object], target.objects[other.object], extra)
    )


def ranked(graph, constraint):
    """Relations in the order of ranking, under the graph constraint named."""
    scored = any(relation.score is not None for relation in graph.relations)
    relations = list(graph.relations)
    if scored:
        relations.sort(key=lambda relation: -(1.0 if relation.score is None else relation.score))
    if constraint == "never" or (constraint == "scored" and not scored):
        return relations
    kept = []
    for relation in relations:
        if all((relation.subject, relation.object) != (other.subject, other.object) for other in kept):
            kept.append(relation)
    return kept


def largest_matching(edges, num_left):
    """Size and matched right sides of a largest matching, by augmenting paths."""
    partner = {}

    def augment(left, tried):
        for right in edges.get(left, ()):
            if right not in tried:
                tried.add(right)
                if right not in partner or augment(partner[right], tried):
                    partner[right] = left
                    return True
        return False

    for left in range(num_left):
        augment(left, set())
    return set(partner)


def hit_indices(graph, target, k, constraint="scored", one_to_one=False, extra=0.0):
    """Indices of the target relations that the top k hit."""
    top = ranked(graph, constraint)[:k]
    edges = {
        left: [t for t, other in enumerate(target.relations) if relations_agree(graph, relation, target, other, extra)]
        for left, relation in enumerate(top)
    }
    if one_to_one:
        return largest_matching(edges, len(top))
    return set(itertools.chain.from_iterable(edges.values()))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def recall(graphs, targets, k, keep=lambda target, relation: True, **options):
    found = []
    for graph, target in zip(graphs, targets, strict=True):
        wanted = [t for t, relation in enumerate(target.relations) if keep(target, relation)]
        if wanted:
            hits = hit_indices(graph, target, k, **options)
            found.append(len(hits & set(wanted)) / len(wanted))
    return mean(found)


def mean_recall(graphs, targets, k, num_predicates=None, **options):
    names = sorted({relation.predicate for target in targets for relation in target.relations})
    values = [
        recall(graphs, targets, k, keep=lambda _, relation, name=name: relation.predicate == name, **options)
        for name in names
    ]
    if not values:
        return None
    return sum(values) / (num_predicates or len(values))


def precision_recall_f1(graphs, targets, kind):
    matched = predicted = wanted = 0
    for graph, target in zip(graphs, targets, strict=True):
        left, right = getattr(graph, kind), getattr(target, kind)
        if kind == "objects":
            edges = {n: [m for m, b in enumerate(right) if objects_agree(a, b)] for n, a in enumerate(left)}
        else:
            edges = {
                n: [m for m, b in enumerate(right) if relations_agree(graph, a, target, b)] for n, a in enumerate(left)
            }
        matched += len(largest_matching(edges, len(left)))
        predicted += len(left)
        wanted += len(right)
    return (
        matched / predicted if predicted else None,
        matched / wanted if wanted else None,
        2 * matched / (predicted + wanted) if predicted + wanted else None,
    )


def hallucination(graphs, targets, kind):
    lost = total = 0
    for graph, target in zip(graphs, targets, strict=True):
        for item in getattr(graph, kind):
            total += 1
            if kind == "objects":
                lost += not any(objects_agree(item, other) for other in target.objects)
            else:
                lost += not any(relations_agree(graph, item, target, other) for other in target.relations)
    return lost / total if total else None


def greedy_hits(graphs, targets, threshold):
    """True positives, predictions and targets of greedy matching by score, then emission."""
    hits = 0
    for graph, target in zip(graphs, targets, strict=True):
        order = sorted(
            range(len(graph.objects)),
            key=lambda n: -(1.0 if graph.objects[n].score is None else graph.objects[n].score),
        )
        taken = set()
        for n in order:
            best, chosen = threshold, None
            for m, other in enumerate(target.objects):
                if m in taken or other.label != graph.objects[n].label:
                    continue
                overlap = iou(graph.objects[n].box, other.box)
                if overlap >= best:
                    best, chosen = overlap, m
            if chosen is not None:
                taken.add(chosen)
                hits += 1
    return hits, sum(len(graph.objects) for graph in graphs), sum(len(target.objects) for target in targets)
