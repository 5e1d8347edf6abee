"""Recall on hand-computed cases."""

from __future__ import annotations

import dataclasses

import pytest

from metrics.graphs import QUICK, graph, pair, values

A, B, C, D = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)
THREE = [("dog", A), ("cat", B), ("hat", C)]
TARGET = graph(THREE, [(0, "on", 1), (1, "near", 2), (0, "near", 2), (2, "on", 0)])


def test_two_of_four_relations_are_hit_and_k_cuts_the_list():
    predicted = graph(THREE, [(0, "on", 2), (0, "on", 1), (1, "near", 2)])
    found = values([pair(predicted, TARGET)], dataclasses.replace(QUICK, ks=(1, 2, 20)))
    # rank 1: on(dog, hat) is no target; rank 2: hit; rank 3: hit
    assert found["R@1"] == 0
    assert found["R@2"] == 1 / 4
    assert found["R@20"] == found["ng-R@20"] == found["Recall"] == 2 / 4
    # predicate "on": 1 of 2 targets; "near": 1 of 2
    assert found["mR@20"] == found["mRecall"] == (1 / 2 + 1 / 2) / 2
    assert found["mR@2"] == (1 / 2 + 0) / 2
    assert "zR@20" not in found


def test_recall_averages_over_images_with_targets_only():
    empty = graph(THREE)
    one = graph(THREE, [(0, "on", 1)])
    found = values(
        [pair(TARGET, TARGET, "1"), pair(empty, one, "2"), pair(one, empty, "3")],  # 1, 0, no target
    )
    assert found["R@50"] == (1 + 0) / 2
    # "on": image 1 gives 1, image 2 gives 0; "near": image 1 gives 1 and is its only image
    assert found["mR@50"] == ((1 + 0) / 2 + 1) / 2


@pytest.mark.parametrize(
    ("objects", "hit"),
    [
        ([("dog", A), ("cat", B)], True),
        ([("dog", A), ("hat", B)], False),  # the object's label differs
        ([("dog", (0, 0, 10, 5)), ("cat", B)], True),  # IoU 50 / 100 = 0.5, inclusive
        ([("dog", (0, 0, 10, 4.9)), ("cat", B)], False),  # IoU 0.49
        ([("dog", B), ("cat", A)], False),  # boxes swapped
    ],
)
def test_a_hit_needs_three_labels_and_both_boxes(objects, hit):
    target = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    assert values([pair(graph(objects, [(0, "on", 1)]), target)])["Recall"] == float(hit)
    assert values([pair(graph(objects, [(0, "near", 1)]), target)])["Recall"] == 0
    assert values([pair(graph(objects, [(1, "on", 0)]), target)])["Recall"] == 0


def test_plus_one_pixel_makes_small_boxes_overlap_more():
    # 1 x 1 against 1 x 3: IoU 1/3; with a pixel added 2 x 2 against 2 x 4: 4/8 = 0.5
    target = graph([("dog", (0, 0, 1, 1)), ("cat", B)], [(0, "on", 1)])
    predicted = graph([("dog", (0, 0, 1, 3)), ("cat", B)], [(0, "on", 1)])
    assert values([pair(predicted, target)])["Recall"] == 0
    plus_one = values([pair(predicted, target)], dataclasses.replace(QUICK, plus_one=True))
    assert plus_one["Recall"] == plus_one["triplet_recall"] == plus_one["object_recall"] == 1
    # COCO has no such option: of dog and cat, only the cat's box agrees
    assert plus_one["AP50"] == plus_one["greedy_recall"] == 1 / 2


def test_one_prediction_may_hit_several_targets_or_only_one():
    # two targets that one prediction cannot tell apart
    target = graph([("dog", A), ("dog", (0, 0, 10, 9)), ("cat", B)], [(0, "on", 2), (1, "on", 2)])
    predicted = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    found = values([pair(predicted, target)])
    assert found["R@20"] == found["Recall"] == found["mR@20"] == 1
    assert (found["triplet_precision"], found["triplet_recall"]) == (1, 1 / 2)
    strict = values([pair(predicted, target)], dataclasses.replace(QUICK, hits="one_to_one"))
    assert strict["R@20"] == strict["Recall"] == strict["mR@20"] == 1 / 2


def test_each_target_counts_once_however_often_it_is_predicted():
    target = graph([("dog", A), ("cat", B)], [(0, "on", 1), (1, "on", 0)])
    predicted = graph([("dog", A), ("cat", B), ("dog", A)], [(0, "on", 1), (2, "on", 1), (0, "on", 1)])
    found = values([pair(predicted, target)])
    assert found["R@20"] == 1 / 2
    assert found["triplet_precision"] == 1 / 3
    assert found["relation_hallucination"] == 0  # repeated, but not made up
    assert found["duplicates_per_image"] == 2


def test_ranking_is_by_score_and_emission_breaks_ties():
    target = graph(THREE, [(0, "on", 1)])
    options = dataclasses.replace(QUICK, ks=(1,))
    low_first = graph(THREE, [(1, "near", 2, 0.1), (0, "on", 1, 0.9)])
    tie = graph(THREE, [(1, "near", 2, 0.5), (0, "on", 1, 0.5)])
    unscored = graph(THREE, [(1, "near", 2), (0, "on", 1)])
    assert values([pair(low_first, target)], options)["R@1"] == 1
    assert values([pair(tie, target)], options)["R@1"] == 0
    assert values([pair(unscored, target)], options)["R@1"] == 0
    # a relation without a score beside scored ones has score 1
    assert values([pair(graph(THREE, [(1, "near", 2, 0.9), (0, "on", 1)]), target)], options)["R@1"] == 1


def test_graph_constraint_keeps_the_best_predicate_of_a_pair():
    target = graph(THREE, [(0, "on", 1), (1, "near", 2)])
    scored = graph(THREE, [(0, "on", 1, 0.2), (0, "near", 1, 0.9), (1, "near", 2, 0.1)])
    unscored = graph(THREE, [(0, "near", 1), (0, "on", 1), (1, "near", 2)])
    # scored: `near` displaces `on` for (0, 1), so only (1, near, 2) is left to hit
    assert values([pair(scored, target)])["R@20"] == 1 / 2
    assert values([pair(scored, target)])["ng-R@20"] == values([pair(scored, target)])["Recall"] == 1
    # an answer without scores states every relation
    assert values([pair(unscored, target)])["R@20"] == 1
    always = dataclasses.replace(QUICK, graph_constraint="always", ks=(2, 20))
    assert values([pair(unscored, target)], always)["R@20"] == 1 / 2
    # the relation left out takes no rank: (1, near, 2) is second
    assert values([pair(unscored, target)], always)["R@2"] == 1 / 2
    assert values([pair(unscored, target)], always)["ng-R@2"] == 1 / 2
    never = dataclasses.replace(QUICK, graph_constraint="never")
    assert values([pair(scored, target)], never)["R@20"] == 1


def test_zero_shot_recall_counts_only_triplet_types_unseen_in_training():
    predicted = graph(THREE, [(0, "on", 1), (2, "on", 0)])
    seen = {("dog", "on", "cat"), ("cat", "near", "hat")}
    # unseen targets: dog near hat (missed), hat on dog (hit)
    assert values([pair(predicted, TARGET)], triplets=seen)["zR@50"] == 1 / 2
    assert values([pair(predicted, TARGET)], triplets=set())["zR@50"] == 2 / 4
    everything = {("dog", "on", "cat"), ("cat", "near", "hat"), ("dog", "near", "hat"), ("hat", "on", "dog")}
    assert values([pair(predicted, TARGET)], triplets=everything)["zR@50"] is None


def test_absent_predicates_are_left_out_or_count_as_zero():
    vocabulary = ("on", "near", "eating", "riding")
    options = dataclasses.replace(QUICK, predicates=vocabulary)
    assert values([pair(TARGET, TARGET)], options)["mR@50"] == 1
    as_zero = dataclasses.replace(options, absent_predicates_as_zero=True)
    # 2 of 4 predicates occur
    found = values([pair(TARGET, TARGET)], as_zero)
    assert found["mR@50"] == found["mRecall"] == 1 / 2
    with pytest.raises(ValueError, match="vocabulary"):
        dataclasses.replace(QUICK, absent_predicates_as_zero=True)


def test_a_failed_answer_counts_as_an_empty_prediction():
    found = values([pair(TARGET, TARGET, "1"), pair(None, TARGET, "2", status="invalid_json")])
    assert found["R@50"] == found["mR@50"] == found["triplet_recall"] == found["object_recall"] == 1 / 2
    assert found["AP50"] == pytest.approx(51 / 101)  # recall ends at 0.5: 51 of the 101 recall points are reached
    assert found["triplet_precision"] == found["object_precision"] == 1
    assert found["relations_per_image"] == 4 / 2
    assert found["failure_rate"] == 1 / 2
