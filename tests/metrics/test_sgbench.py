"""Equal to sgbench 1.0.0 where both are defined.

sgbench gives every predicted object to one target, which its protocol here does too. It raises on empty predictions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metrics.graphs import LABELS, PREDICATES, QUICK, graph, pairs_of, values
from scenerl.metrics import protocol

sgbench = pytest.importorskip("sgbench", reason="the reference evaluator sgbench 1.0.0 is not installed")


def scenes(seed, spacing=30):
    """Targets on a grid of cells; predictions jitter them, forget some and invent some relations. Cells ``spacing``
    apart: at 30 no prediction fits two targets, at 5 many do."""
    generator = np.random.default_rng(seed)
    targets, predicted = [], []
    for _ in range(20):
        count = int(generator.integers(2, 9))
        cells = generator.permutation(16)[:count]
        objects = [
            (LABELS[int(generator.integers(3))], tuple(float(v) for v in (x, y, x + 20, y + 20)))
            for x, y in ((spacing * (cell % 4), spacing * (cell // 4)) for cell in cells)
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


def sgbench_values(predicted, targets):
    """R@K, mR@K and InstR as sgbench averages them."""
    found = {f"{kind}@{k}": [] for kind in ("R", "mR") for k in (20, 50, 100)} | {"InstR": []}
    for guess, target in zip(predicted, targets, strict=True):
        boxes, labels, triplets = arrays(guess)
        true_boxes, true_labels, true_triplets = arrays(target)
        match = sgbench.match_instances(true_boxes, true_labels, boxes, labels)
        matched = sgbench.remap_triplets(match, triplets)
        found["InstR"].append(sgbench.instance_recall(len(true_boxes), match))
        for k in (20, 50, 100):
            for mean, kind in ((False, "R"), (True, "mR")):
                found[f"{kind}@{k}"].append(sgbench.recall(k, mean, true_triplets, matched, len(PREDICATES)))
    return {
        name: np.nanmean(np.stack(values), axis=0).mean() if name.startswith("mR") else np.mean(values)
        for name, values in found.items()
    }


@pytest.mark.parametrize("seed", range(5))
def test_recall_and_mean_recall(seed):
    predicted, targets = scenes(seed)
    found = values(pairs_of(predicted, targets), QUICK)
    for name, expected in sgbench_values(predicted, targets).items():
        assert 0.2 < expected < 1 or name == "InstR"
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("seed", range(5))
def test_its_protocol_where_predictions_fit_several_targets(seed):
    predicted, targets = scenes(seed, spacing=5)
    options = dataclasses.replace(QUICK, **protocol("sgbench").settings)
    found, plain = (values(pairs_of(predicted, targets), chosen) for chosen in (options, QUICK))
    for name, expected in sgbench_values(predicted, targets).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    assert plain["R@50"] > found["R@50"]
