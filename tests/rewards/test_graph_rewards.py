"""Rewards of scene graphs on one small scene, the arithmetic beside each number.

The scene is 100 x 100. Targets: a man [0, 0, 40, 40] on a bike [20, 0, 60, 40], and a dog [60, 60, 100, 100] near the
man.
"""

from __future__ import annotations

from math import exp

import pytest

from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.similarity import exact
from scenerl.types import Issue, ParseResult, Relation, SceneGraph, SceneObject

MAN, BIKE, DOG = (0.0, 0.0, 40.0, 40.0), (20.0, 0.0, 60.0, 40.0), (60.0, 60.0, 100.0, 100.0)
TARGET = SceneGraph(
    (SceneObject("man", MAN), SceneObject("bike", BIKE), SceneObject("dog", DOG)),
    (Relation(0, "on", 1), Relation(2, "near", 0)),
)


def graph(objects, relations=()) -> SceneGraph:
    return SceneGraph(
        tuple(SceneObject(label, tuple(map(float, box))) for label, box in objects),
        tuple(Relation(*relation) for relation in relations),
    )


def compare(predicted: SceneGraph, target: SceneGraph = TARGET, issues=(), in_template=True, **options) -> Comparison:
    result = ParseResult("ok", predicted, tuple(issues), in_template)
    return Comparison(result, target, (100, 100), RewardOptions(**options))


def value(name: str, *args, **kwargs) -> float:
    return REWARDS[name](compare(*args, **kwargs))


def like(a: str, b: str) -> float:
    """A similarity for tests: 0.5 between labels with the same first letter."""
    return 1.0 if a == b else 0.5 if a[:1] == b[:1] else 0.0


# format


def test_format():
    issue = Issue("no_area", "objects[0]")
    assert value("format", TARGET) == 1.0
    assert value("format", SceneGraph()) == 1.0
    assert value("format", TARGET, in_template=False) == 0.5
    assert value("format", TARGET, in_template=False, strict_format=True) == 0.0
    assert value("format", TARGET, issues=[issue]) == 0.0


# nodes


def test_node_rewards_of_shifted_and_missing_objects():
    # The man 10 to the right: overlap 30 x 40 = 1200 of 1600 + 1600 - 1200 = 2000, so IoU 0.6; L1 (10 + 10) / 100.
    # The bike is exact, the dog is not there.
    predicted = graph([("man", (10, 0, 50, 40)), ("bike", BIKE)])
    assert value("node_label", predicted) == pytest.approx(2 / 3)
    man, bike = (2 * 0.6 + 5 * exp(-0.2)) / 7, 1.0
    assert value("node_box", predicted) == pytest.approx((man + bike) / 3)


def test_the_match_weighs_labels_and_boxes():
    # Two boxes with the labels swapped. Keeping places costs 1 + 1 in labels. Swapping places costs, twice,
    # 2 (1 - GIoU) + 5 L1 = 2 (1 - 1/3) + 5 * 0.4 = 3.33. So places are kept: no label is right, every box is.
    predicted = graph([("bike", MAN), ("man", BIKE)])
    target = SceneGraph(TARGET.objects[:2])
    assert value("node_label", predicted, target) == 0.0
    assert value("node_box", predicted, target) == 1.0
    # Boxes 2 apart: GIoU 38/42, L1 0.04; swapping places costs 2 * (2 * 4/42 + 0.2) = 0.78 < 2: labels win.
    target = graph([("man", (0, 0, 40, 40)), ("bike", (2, 0, 42, 40))])
    predicted = graph([("bike", (0, 0, 40, 40)), ("man", (2, 0, 42, 40))])
    assert value("node_label", predicted, target) == 1.0
    assert value("node_box", predicted, target) == pytest.approx((2 * 38 / 42 + 5 * exp(-0.04)) / 7)


def test_l1_is_scaled_by_width_and_height():
    # 20 pixels right of 200, 10 pixels down of 100: 4 * 0.1. Overlap 80 x 40 of 2 * 100 * 50 - 3200.
    target, predicted = graph([("man", (0, 0, 100, 50))]), graph([("man", (20, 10, 120, 60))])
    comparison = Comparison(ParseResult("ok", predicted), target, (200, 100))
    assert REWARDS["node_box"](comparison) == pytest.approx((2 * 3200 / 6800 + 5 * exp(-0.4)) / 7)


def test_every_target_is_matched_while_predictions_last():
    # One far-off prediction still takes a target: the nearest in cost. Of three targets one label is right.
    assert value("node_label", graph([("dog", (0, 90, 5, 100))])) == pytest.approx(1 / 3)
    # Extra predictions neither pay nor cost.
    extra = graph([*((item.label, item.box) for item in TARGET.objects), ("cat", (1, 1, 2, 2))])
    assert value("node_label", extra) == value("node_box", extra) == 1.0


def test_node_label_with_a_similarity():
    # "male" is half a man
    predicted = graph([("male", MAN), ("bike", BIKE), ("dog", DOG)])
    assert value("node_label", predicted, similarity=like) == pytest.approx(2.5 / 3)
    assert value("node_label", predicted) == pytest.approx(2 / 3)


# edges


def test_hard_recall_needs_three_labels_and_both_boxes():
    right = [("man", MAN), ("bike", BIKE), ("dog", DOG)]
    assert value("hard_recall", graph(right, [(0, "on", 1)])) == 0.5
    assert value("hard_recall", graph(right, [(0, "on", 1), (2, "near", 0)])) == 1.0
    assert value("hard_recall", graph(right, [(0, "under", 1)])) == 0.0
    assert value("hard_recall", graph(right, [(1, "on", 0)])) == 0.0
    assert value("hard_recall", graph([("person", MAN), ("bike", BIKE)], [(0, "on", 1)])) == 0.0
    # The man 20 to the right: overlap 800 of 2400, IoU 1/3
    moved = graph([("man", (20, 0, 60, 40)), ("bike", BIKE)], [(0, "on", 1)])
    assert value("hard_recall", moved) == 0.0
    assert value("hard_recall", moved, iou_threshold=0.33) == 0.5


def test_the_threshold_is_inclusive():
    # [0, 0, 40, 20] in [0, 0, 40, 40]: IoU exactly 0.5
    assert value("hard_recall", graph([("man", (0, 0, 40, 20)), ("bike", BIKE)], [(0, "on", 1)])) == 0.5


def test_one_prediction_serves_several_targets_unless_one_to_one():
    # Two nearly equal men on the bike in the target (IoU 38/42 with each other), one in the answer.
    target = graph([("man", MAN), ("man", (2, 0, 42, 40)), ("bike", BIKE)], [(0, "on", 2), (1, "on", 2)])
    predicted = graph([("man", MAN), ("bike", BIKE)], [(0, "on", 1)])
    assert value("hard_recall", predicted, target) == value("relaxed_recall", predicted, target) == 1.0
    assert value("hard_recall", predicted, target, one_to_one=True) == 0.5
    assert value("relaxed_recall", predicted, target, one_to_one=True) == 0.5


def test_one_to_one_finds_the_largest_match():
    # Prediction 0 fits targets 0 and 1, prediction 1 only target 0 (its man is 18 left of target 1's: overlap 22 x 40
    # of 58 x 40, IoU 0.38). Giving target 0 to prediction 0 first would leave prediction 1 without.
    target = graph([("man", (10, 0, 50, 40)), ("man", (20, 0, 60, 40)), ("bike", DOG)], [(0, "on", 2), (1, "on", 2)])
    predicted = graph([("man", (14, 0, 54, 40)), ("man", (2, 0, 42, 40)), ("bike", DOG)], [(0, "on", 2), (1, "on", 2)])
    assert value("hard_recall", predicted, target, one_to_one=True) == 1.0
    assert value("triplet_precision", predicted, target) == 1.0


def test_relaxed_recall_multiplies_three_similarities():
    # (male, onto, bicycle): 0.5 * 0.5 * 0.5; the second target has nothing in its place.
    predicted = graph([("male", MAN), ("bicycle", BIKE)], [(0, "onto", 1)])
    assert value("relaxed_recall", predicted, similarity=like) == pytest.approx(0.125 / 2)
    # A better one in the same place counts instead: (man, onto, bicycle) 0.25.
    predicted = graph([("male", MAN), ("bicycle", BIKE), ("man", MAN)], [(0, "onto", 1), (2, "onto", 1)])
    assert value("relaxed_recall", predicted, similarity=like) == pytest.approx(0.25 / 2)
    assert value("relaxed_recall", predicted) == 0.0


def test_soft_recall_goes_by_the_node_match_whatever_the_iou():
    # The man 20 to the right has IoU 1/3 and fails the gate, but he is the man that the match finds.
    moved = graph([("man", (20, 0, 60, 40)), ("bike", BIKE)], [(0, "on", 1)])
    assert value("relaxed_recall", moved) == 0.0
    assert value("soft_recall", moved) == 0.5
    # "onto" for "on" is half, and the better of two relations between the same objects counts.
    predicted = graph([("man", MAN), ("bike", BIKE)], [(0, "riding", 1), (0, "onto", 1)])
    assert value("soft_recall", predicted, similarity=like) == 0.25


def test_soft_recall_does_not_depend_on_which_twin_was_matched():
    for subject in (0, 1):
        repeated = graph([("man", MAN), ("man", MAN), ("bike", BIKE)], [(subject, "on", 2)])
        assert value("soft_recall", repeated) == 0.5


def test_predicate_weighted_recall():
    # "on" weighs 1, "near" 3: finding only "near" is 3 of 4.
    weights = {"on": 1.0, "near": 3.0}
    predicted = graph([("man", MAN), ("dog", DOG)], [(1, "near", 0)])
    assert value("predicate_weighted_recall", predicted, predicate_weights=weights) == 0.75
    assert value("predicate_weighted_recall", predicted, predicate_weights=weights, one_to_one=True) == 0.75
    assert value("predicate_weighted_recall", predicted) == 0.5
    # A predicate without a weight is as heavy as the heaviest, here 2 beside 2.
    assert value("predicate_weighted_recall", predicted, predicate_weights={"on": 2.0}) == 0.5


# density


def test_precision_and_f():
    # Three predicted relations, one right; two targets. Precision 1/3, recall 1/2.
    predicted = graph([("man", MAN), ("bike", BIKE), ("dog", DOG)], [(0, "on", 1), (0, "under", 1), (1, "near", 2)])
    assert value("triplet_precision", predicted) == pytest.approx(1 / 3)
    assert value("triplet_f1", predicted) == pytest.approx(2 / 5)  # 2 hits / (3 + 2)
    # beta 2: (1 + 4) * 1 / (3 + 4 * 2); equal to 5 p r / (4 p + r) = (5/6) / (4/3 + 1/2)
    assert value("triplet_f_beta", predicted, beta=2.0) == pytest.approx(5 / 11)
    assert value("triplet_f1", predicted, beta=2.0) == pytest.approx(2 / 5)


def test_doubled_relations_do_not_help():
    # The same man twice: one hit is one target's, the other is a false alarm.
    twice = graph([("man", MAN), ("man", MAN), ("bike", BIKE)], [(0, "on", 2), (1, "on", 2)])
    assert value("hard_recall", twice) == 0.5
    assert value("triplet_precision", twice) == 0.5
    assert value("triplet_f1", twice) == pytest.approx(2 / 4)


def test_hallucination():
    # Objects: the man is there, the cat is not, the second man is one too many. Relations: one of two is right.
    predicted = graph([("man", MAN), ("bike", BIKE), ("cat", DOG), ("man", MAN)], [(0, "on", 1), (2, "near", 0)])
    assert value("hallucination", predicted) == pytest.approx(3 / 6)
    assert value("hallucination", TARGET) == 0.0
    assert value("hallucination", graph([("cat", DOG)])) == 1.0


def test_box_count():
    one = graph([("x", MAN)])
    assert value("box_count", one) == pytest.approx(1 / 3)
    assert value("box_count", graph([("x", MAN)] * 6)) == 0.5
    assert value("box_count", graph([("x", MAN)] * 3)) == 1.0


# empty cases

EMPTY = SceneGraph()
FREE = SceneGraph(TARGET.objects)  # objects, but no relations


@pytest.mark.parametrize(
    ("name", "nothing_for_nothing", "something_for_nothing", "nothing_for_something"),
    [
        ("format", 1, 1, 1),
        ("node_label", 1, 1, 0),
        ("node_box", 1, 1, 0),
        ("hard_recall", 1, 1, 0),
        ("relaxed_recall", 1, 1, 0),
        ("soft_recall", 1, 1, 0),
        ("predicate_weighted_recall", 1, 1, 0),
        ("iou", 1, 0, 0),
        ("ap", 1, 0, 0),
        ("ap50", 1, 0, 0),
        ("od_length", 1, 0, 0),
        ("weighted_sum", 1, 0, 0),
        ("triplet_f_beta", 1, 0, 0),
        ("triplet_f1", 1, 0, 0),
        ("triplet_precision", 1, 0, 0),
        ("hallucination", 0, 1, 0),
        ("box_count", 1, 0, 0),
        ("repetition", 0, 0, 0),
    ],
)
def test_empty_cases(name, nothing_for_nothing, something_for_nothing, nothing_for_something):
    assert value(name, EMPTY, EMPTY) == nothing_for_nothing
    assert value(name, TARGET, EMPTY) == something_for_nothing
    assert value(name, EMPTY, TARGET) == nothing_for_something


def test_objects_without_relations():
    assert value("hard_recall", TARGET, FREE) == 1.0
    assert value("triplet_f1", FREE, FREE) == 1.0
    assert value("triplet_precision", TARGET, FREE) == value("triplet_precision", FREE, TARGET) == 0.0


def test_relaxed_recall_with_an_exact_similarity_is_hard_recall():
    def equal(a: str, b: str) -> float:
        return float(a == b)

    predicted = graph([("man", MAN), ("bike", BIKE), ("dog", DOG)], [(0, "on", 1), (2, "far", 0)])
    for one_to_one in (False, True):
        values = {
            value(name, predicted, similarity=similarity, one_to_one=one_to_one)
            for name in ("hard_recall", "relaxed_recall")
            for similarity in (exact, equal)
        }
        assert values == {0.5}


@pytest.mark.parametrize(("shift", "partner"), [(3.5, 1), (4, 0)])
def test_the_cost_of_a_match_weighs_label_overlap_and_distance(shift, partner):
    """Another label in place costs 1, the same label d pixels aside 2 (1 - (20 - d) / (20 + d)) + 5 * 2 d / 100:
    0.946 at 3.5 pixels, 1.067 at 4.
    """
    predicted = SceneGraph((SceneObject("dog", (0, 0, 20, 20)),))
    target = SceneGraph((SceneObject("cat", (0, 0, 20, 20)), SceneObject("dog", (shift, 0, 20 + shift, 20))))
    assert Comparison(ParseResult("ok", predicted), target, (100, 100)).node_match == [(0, partner)]
