"""Equal to sgbench 1.0.0 where both are defined.

sgbench gives every predicted object to one target, so the comparison needs scenes where no prediction fits two targets;
and it raises on empty predictions.
"""

from __future__ import annotations

import numpy as np
import pytest

from metrics.graphs import LABELS, PREDICATES, QUICK, graph, pairs_of, values

sgbench = pytest.importorskip("sgbench", reason="the reference evaluator sgbench 1.0.0 is not installed")


def scenes(seed):
    """Targets on a grid of cells far apart; predictions jitter them, forget some and invent some relations."""
    generator = np.random.default_rng(seed)
    targets, predicted = [], []
    for _ in range(20):
        count = int(generator.integers(2, 9))
        cells = generator.permutation(16)[:count]
        objects = [
            (LABELS[int(generator.integers(3))], tuple(float(v) for v in (x, y, x + 20, y + 20)))
            for x, y in ((30 * (cell % 4), 30 * (cell // 4)) for cell in cells)
        ]
        jittered = [
            (name if generator.random() < 0.9 else "dog", tuple(float(v + generator.integers(-4, 5)) for v in box))
            for name, box in objects
        ]

        def relations(number, size=count):
            # distinct pairs with one predicate each, as sgbench takes them
            ends = [divmod(int(n), size) for n in generator.permutation(size * size)[:number]]
            return [(a, PREDICATES[int(generator.integers(3))], b) for a, b in ends if a != b]

        true = relations(5) or [(0, "on", 1)]
        targets.append(graph(objects, true))
        kept = [entry for entry in true if generator.random() < 0.6]
        taken = {(a, b) for a, _, b in kept}
        extra = [entry for entry in relations(30) if (entry[0], entry[2]) not in taken]
        predicted.append(graph(jittered, [*extra[:3], *kept, *extra[3:]] or [(0, "on", 1)]))
    return predicted, targets


def arrays(found):
    boxes = np.array([entry.box for entry in found.objects])
    labels = np.array([LABELS.index(entry.label) for entry in found.objects])
    triplets = np.array([[r.subject, r.object, PREDICATES.index(r.predicate)] for r in found.relations])
    return boxes, labels, triplets


@pytest.mark.parametrize("seed", range(5))
def test_recall_and_mean_recall(seed):
    predicted, targets = scenes(seed)
    found = values(pairs_of(predicted, targets), QUICK)
    for k in (20, 50, 100):
        plain, mean = [], []
        for guess, target in zip(predicted, targets, strict=True):
            boxes, labels, triplets = arrays(guess)
            true_boxes, true_labels, true_triplets = arrays(target)
            matched = sgbench.remap_triplets(sgbench.match_instances(true_boxes, true_labels, boxes, labels), triplets)
            rest = (true_triplets, matched, len(PREDICATES))
            plain.append(sgbench.recall(k, False, *rest))
            mean.append(sgbench.recall(k, True, *rest))
        assert 0.2 < np.mean(plain) < 0.9
        assert found[f"R@{k}"] == pytest.approx(np.mean(plain), abs=1e-12)
        assert found[f"mR@{k}"] == pytest.approx(np.nanmean(np.stack(mean), axis=0).mean(), abs=1e-12)
