"""The rewards against a slow second implementation, written from their definitions pair by pair."""

from __future__ import annotations

import random
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from metrics.reference import iou, largest_matching
from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.types import ParseResult, Relation, SceneGraph, SceneObject

WIDTH, HEIGHT = 64, 48
LABELS = ["cat", "cow", "dog", "horse"]
PREDICATES = ["on", "off", "near"]


def giou(a, b) -> float:
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    size = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    share = iou(a, b)
    union = size / (1 + share)  # overlap = share * union and overlap + union = size
    return share - (hull - union) / hull


def l1(a, b) -> float:
    return sum(abs(x - y) / side for x, y, side in zip(a, b, (WIDTH, HEIGHT, WIDTH, HEIGHT), strict=True))


def node_match(predicted, target, similarity) -> list[tuple[int, int]]:
    cost = np.array(
        [
            [
                (1 - similarity(p.label, t.label)) + 2 * (1 - giou(p.box, t.box)) + 5 * l1(p.box, t.box)
                for t in target.objects
            ]
            for p in predicted.objects
        ]
    ).reshape(len(predicted.objects), len(target.objects))
    return list(zip(*(side.tolist() for side in linear_sum_assignment(cost)), strict=True))


def reference(predicted: SceneGraph, target: SceneGraph, options: RewardOptions) -> dict[str, float]:
    """The values where neither side is without objects or relations."""
    similarity, threshold = options.similarity, options.iou_threshold
    num_objects, num_relations = len(target.objects), len(target.relations)
    match = node_match(predicted, target, similarity)
    matched = [(predicted.objects[n], target.objects[m]) for n, m in match]

    def boxes_agree(edge, wanted) -> bool:
        ends = ((edge.subject, wanted.subject), (edge.object, wanted.object))
        return all(iou(predicted.objects[n].box, target.objects[m].box) >= threshold for n, m in ends)

    def alike(edge, wanted) -> float:
        a, b = predicted.triplet(edge), target.triplet(wanted)
        return similarity(a[0], b[0]) * similarity(a[1], b[1]) * similarity(a[2], b[2])

    def is_hit(edge, wanted) -> bool:
        return boxes_agree(edge, wanted) and predicted.triplet(edge) == target.triplet(wanted)

    relaxed = [
        max([alike(edge, wanted) for edge in predicted.relations if boxes_agree(edge, wanted)], default=0.0)
        for wanted in target.relations
    ]
    soft = [
        max(
            [
                alike(edge, wanted)
                for edge in predicted.relations
                if (edge.subject, wanted.subject) in match and (edge.object, wanted.object) in match
            ],
            default=0.0,
        )
        for wanted in target.relations
    ]
    hit = [any(is_hit(edge, wanted) for edge in predicted.relations) for wanted in target.relations]
    weights = options.predicate_weights or {}
    weight = [weights.get(wanted.predicate, max(weights.values(), default=1.0)) for wanted in target.relations]
    edges = {
        r: [t for t, wanted in enumerate(target.relations) if is_hit(edge, wanted)]
        for r, edge in enumerate(predicted.relations)
    }
    num_hits = len(largest_matching(edges, len(predicted.relations)))
    return {
        "node_label": sum(similarity(p.label, t.label) for p, t in matched) / num_objects,
        "node_box": sum((2 * iou(p.box, t.box) + 5 * exp(-l1(p.box, t.box))) / 7 for p, t in matched) / num_objects,
        "hard_recall": sum(hit) / num_relations,
        "relaxed_recall": sum(relaxed) / num_relations,
        "soft_recall": sum(soft) / num_relations,
        "predicate_weighted_recall": sum(w for w, found in zip(weight, hit, strict=True) if found) / sum(weight),
        "triplet_precision": num_hits / len(predicted.relations),
        "triplet_f1": 2 * num_hits / (len(predicted.relations) + num_relations),
    }


def halves(a: str, b: str) -> float:
    return 1.0 if a == b else 0.5 if a[0] == b[0] else 0.0


# Coordinates of no pattern: no two assignments cost the same, so which is best does not hang on the order of sums.
@st.composite
def two_graphs(draw) -> tuple[SceneGraph, SceneGraph]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    targets = []
    for _ in range(draw(st.integers(2, 8))):
        x, y = rng.uniform(0, 40), rng.uniform(0, 30)
        targets.append(SceneObject(rng.choice(LABELS), (x, y, x + rng.uniform(4, 24), y + rng.uniform(4, 18))))
    predicted = [
        SceneObject(
            item.label if rng.random() < 0.7 else rng.choice(LABELS), tuple(c + rng.uniform(-1, 1) for c in item.box)
        )
        for item in (*targets, *rng.choices(targets, k=draw(st.integers(0, 3))))
    ]
    # Where the target has its relations the answer has most of them, with some predicates wrong, in another order.
    place = rng.sample(range(len(predicted)), len(predicted))
    wanted = {(*rng.sample(range(len(targets)), 2), rng.choice(PREDICATES)) for _ in range(draw(st.integers(1, 9)))}
    said = {
        (place.index(s), place.index(o), name if rng.random() < 0.7 else rng.choice(PREDICATES))
        for s, o, name in sorted(wanted)
    }
    said.add((*rng.sample(range(len(predicted)), 2), "on"))
    return (
        SceneGraph(tuple(predicted[n] for n in place), tuple(Relation(s, name, o) for s, o, name in sorted(said))),
        SceneGraph(tuple(targets), tuple(Relation(s, name, o) for s, o, name in sorted(wanted))),
    )


@pytest.mark.parametrize(
    "options",
    [
        RewardOptions(),
        RewardOptions(similarity=halves, iou_threshold=0.7, predicate_weights={"on": 1.0, "off": 2.5}),
    ],
    ids=["defaults", "others"],
)
@settings(max_examples=100, deadline=None)
@given(graphs=two_graphs())
def test_rewards_equal_the_slow_reference(options, graphs):
    predicted, target = graphs
    expected = reference(predicted, target, options)
    comparison = Comparison(ParseResult("ok", predicted), target, (WIDTH, HEIGHT), options)
    assert {name: REWARDS[name](comparison) for name in expected} == pytest.approx(expected, abs=1e-12)
