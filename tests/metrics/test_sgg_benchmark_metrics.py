"""F1@K, weighted recall and A@K, by hand and against loops written after SGG-Benchmark's definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from metrics.graphs import data_sets, graph, pair, pairs_of, values
from scenerl.boxes import as_boxes, iou_matrix
from scenerl.metrics import MetricOptions, evaluate

BOXES = [("dog", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10)), ("hat", (40, 0, 50, 10))]
TARGET = graph(BOXES, [(0, "on", 1), (1, "on", 2), (2, "near", 0)])
ALWAYS = {"graph_constraint": "always", "bootstrap_samples": 0}


def test_f1_is_the_harmonic_mean_of_recall_and_mean_recall():
    # "on" is hit once of twice, "near" not: R 1/3, mR (1/2 + 0) / 2 = 1/4, F1 2/12 / (7/12) = 2/7
    found = values([pair(graph(BOXES, [(0, "on", 1)]), TARGET)])
    assert (found["R@20"], found["mR@20"]) == (pytest.approx(1 / 3), 1 / 4)
    assert found["F1@20"] == found["F1@100"] == pytest.approx(2 / 7)
    assert values([pair(graph(BOXES, [(0, "near", 1)]), TARGET)])["F1@20"] == 0  # nothing hit: 0, not undefined
    assert values([pair(TARGET, TARGET)])["F1@20"] == 1
    report = evaluate([pair(TARGET, graph(BOXES))], MetricOptions(bootstrap_samples=0))
    assert report.metrics["F1@20"].value is None and report.metrics["F1@20"].note == "no target relations"


def test_f1_counts_absent_predicates_as_mean_recall_does():
    options = MetricOptions(absent_predicates_as_zero=True, predicates=("on", "near", "under"), bootstrap_samples=0)
    # mR (1/2 + 0 + 0) / 3 = 1/6, R 1/3: 2/18 / (9/18) = 2/9
    assert values([pair(graph(BOXES, [(0, "on", 1)]), TARGET)], options)["F1@20"] == pytest.approx(2 / 9)


def test_weighted_recall_charges_the_misses_above_a_hit():
    relations = [(0, "under", 1, 0.9), (0, "on", 2, 0.8), (1, "on", 2, 0.7), (1, "near", 0, 0.6), (2, "near", 0, 0.5)]
    options = MetricOptions(ks=(4, 5, 10), **ALWAYS)
    found = values([pair(graph(BOXES, relations), TARGET)], options)
    # of the first 4 the third hits, with 2 misses above it: (4 - 2) / 4; of three targets: 1/6
    assert found["wR@4"] == pytest.approx(1 / 6)
    # of the first 5 the fifth hits as well, with 3 misses above it: ((5 - 2) + (5 - 3)) / 5 / 3
    assert found["wR@5"] == pytest.approx(1 / 3)
    assert found["wR@10"] == pytest.approx((0.8 + 0.7) / 3)
    assert values([pair(TARGET, TARGET)])["wR@20"] == 1
    images = pairs_of([TARGET, graph(BOXES)], [TARGET, graph(BOXES)])
    assert values(images)["wR@20"] == 1  # the image without target relations does not count


def test_a_target_that_two_predictions_hit_counts_for_both_in_weighted_recall():
    twice = graph([*BOXES, ("dog", (0, 0, 10, 9))], [(0, "on", 1, 0.9), (3, "on", 1, 0.8)])
    target = graph(BOXES, [(0, "on", 1)])
    assert values([pair(twice, target)], MetricOptions(**ALWAYS))["wR@20"] == 2  # as SGG-Benchmark has it


def test_pair_accuracy_counts_pairs_of_targets_only():
    # cat and dog are no pair of a target; (1, on, 2) is right, (2, on, 0) is a wrong predicate of a pair
    relations = [(1, "on", 0, 0.9), (2, "on", 0, 0.8), (1, "on", 2, 0.7)]
    options = MetricOptions(task="predcls", ks=(2, 3), **ALWAYS)
    found = values([pair(graph(BOXES, relations), TARGET)], options)
    assert (found["A@2"], found["A@3"]) == (0, pytest.approx(1 / 3))
    # hits and targets are summed over images: 1 of 3 and 1 of 1
    other = graph(BOXES, [(0, "on", 1)])
    images = pairs_of([graph(BOXES, relations), other], [TARGET, other])
    assert values(images, options)["A@3"] == pytest.approx(2 / 4)
    assert "A@3" not in values(images, MetricOptions(ks=(3,), **ALWAYS))  # of provided objects only


def by_loops(pairs, k):
    """R@K, mR@K, F1@K and wR@K of images with target relations as SGG-Benchmark computes them, absent predicates left
    out; predictions have distinct scores and pairs."""
    recalls, weighted, by_predicate = [], [], {}
    for one in pairs:
        predicted, target = one.result.graph, one.target
        if not target.relations:
            continue
        iou = iou_matrix(*(as_boxes([item.box for item in side.objects]) for side in (predicted, target)))
        ranked = sorted(predicted.relations, key=lambda relation: -relation.score)[:k]
        hits = [
            [
                t
                for t, wanted in enumerate(target.relations)
                if target.triplet(wanted) == predicted.triplet(relation)
                and iou[relation.subject, wanted.subject] >= 0.5
                and iou[relation.object, wanted.object] >= 0.5
            ]
            for relation in ranked
        ]
        found = {t for listed in hits for t in listed}
        recalls.append(len(found) / len(target.relations))
        places = [place for place, listed in enumerate(hits) if listed]
        weighted.append(sum((k - (place - n)) / k for n, place in enumerate(places)) / len(target.relations))
        for name in {relation.predicate for relation in target.relations}:
            own = {t for t, relation in enumerate(target.relations) if relation.predicate == name}
            by_predicate.setdefault(name, []).append(len(found & own) / len(own))
    recall, mean = np.mean(recalls), np.mean([np.mean(listed) for listed in by_predicate.values()])
    f1 = 2 * recall * mean / (recall + mean) if recall + mean else 0.0
    return {f"R@{k}": recall, f"mR@{k}": mean, f"F1@{k}": f1, f"wR@{k}": np.mean(weighted)}


@settings(max_examples=60, deadline=None)
@given(data_sets())
def test_they_equal_plain_loops(sides):
    predicted, targets = sides
    scored = []
    for side in predicted:  # one predicate per pair, and distinct scores
        first = {(relation.subject, relation.object): relation for relation in reversed(side.relations)}
        edges = [relation._replace(score=1 / (n + 2)) for n, relation in enumerate(first.values())]
        scored.append(graph([(item.label, item.box) for item in side.objects], [tuple(edge) for edge in edges]))
    pairs = pairs_of(scored, targets)
    if not any(target.relations for target in targets):
        return
    found = values(pairs, MetricOptions(ks=(2,), **ALWAYS))
    assert {name: found[name] for name in ("R@2", "mR@2", "F1@2", "wR@2")} == pytest.approx(by_loops(pairs, 2))


def test_intervals_of_f1_come_from_the_same_resamples():
    images = pairs_of([TARGET, graph(BOXES, [(0, "on", 1)])] * 4, [TARGET] * 8)
    report = evaluate(images, MetricOptions(bootstrap_samples=200))
    low, high = report.metrics["F1@20"].interval
    assert 0 < low <= report.metrics["F1@20"].value <= high <= 1 and report.metrics["F1@20"].support == 2
