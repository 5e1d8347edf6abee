"""Conventions and the metrics beyond plain recall, on hand-computed cases and against plain definitions."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import reference
from metrics.graphs import QUICK, data_sets, graph, pair, pairs_of, values
from scenerl.metrics import (
    PROTOCOLS,
    MetricOptions,
    SceneGraphMetric,
    compare,
    evaluate,
    evaluate_subsets,
    protocol,
    reliability,
)
from scenerl.metrics.arrays import collect
from scenerl.metrics.detection import greedy_matches, kept_by_nms
from scenerl.types import SceneGraph

A, B, C, D = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)
THREE = [("dog", A), ("cat", B), ("hat", C)]
TARGET = graph(THREE, [(0, "on", 1), (1, "near", 2), (0, "near", 2), (2, "on", 0)])
DETECTION = dataclasses.replace(QUICK, task="det")


def test_phrase_recall_needs_labels_and_the_box_around_both():
    target = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    # both boxes miss (IoU 0.25 and 0), but the box around both is (0, 0, 30, 10) against (0, 0, 25, 10): 25/30
    shifted = graph([("dog", (0, 0, 4, 10)), ("cat", (15, 0, 25, 10))], [(0, "on", 1)])
    found = values([pair(shifted, target)])
    assert (found["R@20"], found["PhrR@20"], found["PairR@20"]) == (0, 1, 0)
    assert values([pair(graph(THREE, [(0, "near", 1)]), target)])["PhrR@20"] == 0


def test_pair_recall_looks_at_ends_only_and_counts_a_pair_once():
    target = graph(THREE, [(0, "on", 1), (0, "near", 1), (1, "on", 2)])
    found = values([pair(graph(THREE, [(0, "eating", 1), (2, "on", 1)]), target)])
    # pairs (0, 1) and (1, 2); the first is found, the second only the wrong way round
    assert (found["PairR@20"], found["R@20"]) == (1 / 2, 0)


@given(data_sets(scored=True))
def test_phrase_and_pair_recall_are_those_of_the_plain_definition(data):
    found = values(pairs_of(*data), dataclasses.replace(QUICK, ks=(2, 20), graph_constraint="never"))
    for k in (2, 20):
        phrases, pairs = [], []
        for guess, target in zip(*data, strict=True):
            top = reference.ranked(guess, "never")[:k]
            if not target.relations:
                continue

            def around(scene, entry):
                a, b = scene.objects[entry.subject].box, scene.objects[entry.object].box
                return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))

            hit = [
                any(
                    guess.triplet(entry) == target.triplet(wanted)
                    and reference.iou(around(guess, entry), around(target, wanted)) >= 0.5
                    for entry in top
                )
                for wanted in target.relations
            ]
            phrases.append(sum(hit) / len(hit))
            ends = {(entry.subject, entry.object) for entry in target.relations}
            hit = [
                any(
                    reference.objects_agree(guess.objects[entry.subject], target.objects[s])
                    and reference.objects_agree(guess.objects[entry.object], target.objects[o])
                    for entry in top
                )
                for s, o in ends
            ]
            pairs.append(sum(hit) / len(hit))
        for name, expected in ((f"PhrR@{k}", phrases), (f"PairR@{k}", pairs)):
            assert found[name] == (pytest.approx(np.mean(expected), abs=1e-12) if expected else None)


def test_ng_mean_recall_and_instance_recall():
    scored = graph(THREE, [(0, "on", 1, 0.2), (0, "near", 1, 0.9), (1, "near", 2, 0.1)])
    target = graph([*THREE, ("dog", D)], [(0, "on", 1), (1, "near", 2)])
    found = values([pair(scored, target, "1"), pair(graph([]), graph(THREE), "2")])
    assert (found["mR@20"], found["ng-mR@20"]) == ((0 + 1) / 2, 1)
    # three of four target objects; the image without a relation does not count
    assert found["InstR"] == 3 / 4


def test_ties_in_expectation_by_hand():
    # four unscored relations, one of them right: the top 1 holds it with probability 1/4, the top 3 with 3/4
    guesses = graph(THREE, [(2, "near", 1), (0, "near", 1), (1, "on", 0), (0, "on", 1)])
    target = graph(THREE, [(0, "on", 1)])
    options = dataclasses.replace(QUICK, ties="expected", ks=(1, 3, 4))
    found = values([pair(guesses, target)], options)
    assert [found[f"R@{k}"] for k in (1, 3, 4)] == [pytest.approx(p) for p in (1 / 4, 3 / 4, 1)]
    assert found["Recall"] == 1
    # scores leave no ties
    ranked = graph(THREE, [(2, "near", 1, 0.9), (0, "on", 1, 0.8)])
    assert values([pair(ranked, target)], options)["R@1"] == 0


@settings(max_examples=40)
@given(data_sets(scored=True, max_images=2), st.sampled_from((1, 2, 3)))
def test_ties_in_expectation_are_the_mean_over_all_orders(data, k):
    """Every order of the relations of each image, ranked by score with emission breaking ties."""
    options = dataclasses.replace(QUICK, ties="expected", ks=(k,), graph_constraint="never")
    guesses = [dataclasses.replace(found, relations=found.relations[:5]) for found in data[0]]
    found = values(pairs_of(guesses, data[1]), options)[f"R@{k}"]
    expected = []
    for guess, target in zip(guesses, data[1], strict=True):
        if target.relations:
            orders = [
                len(reference.hit_indices(dataclasses.replace(guess, relations=order), target, k, "never"))
                for order in itertools.permutations(guess.relations)
            ]
            expected.append(np.mean(orders) / len(target.relations))
    assert found == (pytest.approx(np.mean(expected), abs=1e-9) if expected else None)


def test_failed_answers_count_or_are_skipped():
    empty = graph(THREE)
    pairs = [pair(TARGET, TARGET, "1"), pair(None, TARGET, "2", "invalid_json"), pair(empty, TARGET, "3")]

    def recalls(failed):
        found = evaluate(pairs, dataclasses.replace(QUICK, failed=failed))
        assert found.metrics["failure_rate"].value == 1 / 3
        return found.metrics["R@50"].value, found.metrics["mR@50"].value, found.counts["skipped_images"]

    assert recalls("empty") == (1 / 3, 1 / 3, 0)
    assert recalls("skipped") == (1 / 2, 1 / 2, 1)
    assert recalls("skipped_in_means") == (1 / 3, 1 / 2, 0)
    assert recalls("skipped_if_empty") == (1, 1, 2)
    # intervals of what is left over go over all images, resampled together
    report = evaluate(pairs, MetricOptions(failed="skipped", bootstrap_samples=50))
    assert report.metrics["R@50"].interval == (0, 1) and report.metrics["R@50"].support == 2


def test_best_target_gives_every_object_to_one_target():
    target = graph([("dog", A), ("dog", (0, 0, 10, 9)), ("cat", B)], [(0, "on", 2), (1, "on", 2)])
    predicted = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    assert values([pair(predicted, target)])["R@20"] == 1
    assert values([pair(predicted, target)], dataclasses.replace(QUICK, hits="best_target"))["R@20"] == 1 / 2


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_a_set_of_options(name):
    chosen = protocol(name)
    for task in chosen.tasks:
        options = MetricOptions(
            **{"task": task, "predicates": ("on", "near"), "bootstrap_samples": 0, **chosen.settings}
        )
        report = evaluate([pair(TARGET, TARGET)], options, set())
        for key, value in chosen.settings.items():
            assert report.options[key] == value


def test_unknown_protocol():
    with pytest.raises(ValueError, match="unknown protocol 'voc'; allowed: r1-sgg, motifs"):
        protocol("voc")


def test_head_body_and_tail():
    counts = {"on": 1000, "near": 10, "riding": 1, "at": 0}
    report = evaluate([pair(graph(THREE, [(0, "on", 1)]), TARGET)], QUICK, predicate_counts=counts)
    # four predicates, thirds of 2, 1 and 1: on and near are head; on: 1 of 2, near: 0 of 2
    assert report.metrics["mR@50_head"].value == (1 / 2 + 0) / 2
    assert report.metrics["mR@50_tail"].value is None
    assert report.per_predicate["on"]["group"] == "head" and report.per_predicate["on"]["num_training"] == 1000
    bounds = dataclasses.replace(QUICK, group_bounds=(5, 500))
    found = evaluate([pair(graph(THREE, [(0, "on", 1)]), TARGET)], bounds, predicate_counts=counts).metrics
    assert (found["mR@50_head"].value, found["mR@50_body"].value) == (1 / 2, 0)
    assert "mR@50_head" not in values([pair(TARGET, TARGET)])
    with pytest.raises(ValueError, match="group_bounds"):
        MetricOptions(group_bounds=(500, 5))


def test_nms_keeps_one_prediction_a_target_whatever_the_label():
    target = graph([("lit lamp", A)])
    both = graph([("dark lamp", A, 0.9), ("lit lamp", (0, 0, 10, 9), 0.8), ("lit lamp", B, 0.1)])
    found = values([pair(both, target)], DETECTION)
    assert found["AP50"] == 1 and found["NMS-AP50"] == 0
    objects = collect([pair(both, target)], DETECTION).objects
    assert kept_by_nms(objects).tolist() == [True, False, True]
    # without scores the best fitting stays, then the first emitted; at IoU 0.5 exactly nothing is dropped
    plain = graph([("dark lamp", (0, 0, 10, 9)), ("lit lamp", A), ("dark lamp", A), ("dark lamp", (0, 0, 10, 5))])
    assert kept_by_nms(collect([pair(plain, target)], DETECTION).objects).tolist() == [False, True, False, True]


@given(data_sets(scored=True))
def test_nms_is_that_of_the_plain_definition(data):
    objects = collect(pairs_of(*data), DETECTION).objects
    keep, drop, start = set(), set(), 0
    for guess, target in zip(*data, strict=True):
        for wanted in target.objects:
            near = [n for n, entry in enumerate(guess.objects) if reference.iou(entry.box, wanted.box) > 0.5]
            near.sort(
                key=lambda n: (
                    -(1.0 if guess.objects[n].score is None else guess.objects[n].score),
                    -reference.iou(guess.objects[n].box, wanted.box),
                )
            )
            keep.update(start + n for n in near[:1])
            drop.update(start + n for n in near[1:])
        start += len(guess.objects)
    expected = [n in keep or n not in drop for n in range(start)]
    assert kept_by_nms(objects).tolist() == expected
    thinned = objects.select(np.array(expected, dtype=bool))
    assert (greedy_matches(thinned)[0].shape[1] == sum(expected)) and len(thinned.predicted) == sum(expected)


def test_coco_filtered_leaves_out_crowded_categories_of_an_image():
    many = [("dog", (20.0 * n, 0, 20.0 * n + 10, 10)) for n in range(11)]
    target, predicted = graph([*many, ("cat", B)]), graph([("dog", D), ("cat", B)])
    pairs = [pair(predicted, target, "1"), pair(graph([("dog", A)]), graph([("dog", A)]), "2")]
    report = evaluate(pairs, dataclasses.replace(DETECTION, filtered=True))
    assert report.counts["target_objects"] == report.counts["predicted_objects"] == 2
    assert report.metrics["AP"].value == report.metrics["greedy_precision"].value == 1
    assert evaluate(pairs, DETECTION).metrics["AP"].value < 1
    with pytest.raises(ValueError, match="filtered"):
        MetricOptions(filtered=True)


def test_f1_over_classes_skips_zeros():
    target = graph([("dog", A), ("dog", B), ("cat", C), ("hat", D)])
    predicted = graph([("dog", A), ("dog", C), ("cat", C)])
    found = values([pair(predicted, target)], dataclasses.replace(DETECTION, f1_average="classes"))
    # precision: dog 1/2, cat 1, hat has none; recall: dog 1/2, cat 1, hat 0 (skipped)
    assert found["F1@0.5"] == found["F1_mean"] == pytest.approx(3 / 4)
    assert values([pair(predicted, target)], DETECTION)["F1@0.5"] == 2 * 2 / (3 + 4)


def test_reliability():
    curve = reliability([0.05, 0.95, 1.0, 1.0], [False, True, True, False])
    # bin 0: one, confidence 0.05, none right; last bin: three, confidence 2.95/3, two right
    assert curve["counts"] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert curve["ece"] == pytest.approx((0.05 + (2.95 - 2)) / 4)
    assert curve["accuracy"][1] is None and curve["accuracy"][-1] == pytest.approx(2 / 3)


def test_comparison_sees_a_difference_that_pairs_with_images():
    generator = np.random.default_rng(0)
    targets = [graph(THREE, [(0, "on", 1), (1, "near", 2)]) for _ in range(60)]
    # B answers a third of the images better and none worse; each alone varies much more than their difference
    hard = generator.random(60) < 0.5
    first = [graph(THREE, [] if lost else [(0, "on", 1)]) for lost in hard]
    second = [targets[n] if n % 3 == 0 else first[n] for n in range(60)]
    found = compare(pairs_of(first, targets), pairs_of(second, targets), MetricOptions(bootstrap_samples=300))
    recall = found.metrics["R@50"]
    assert recall.b - recall.a == recall.difference > 0.1
    assert 0 < recall.interval[0] <= recall.difference <= recall.interval[1]
    assert recall.p_value == 2 / 301  # no resample turns it round
    assert [image for image, _, _ in found.images] == [
        *[str(n) for n in range(0, 60, 3) if hard[n]], *[str(n) for n in range(0, 60, 3) if not hard[n]]
    ]  # fmt: skip
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(ValueError, match="same images"):
        compare(pairs_of(first, targets), pairs_of(second, targets)[::-1])


def test_p_values_of_equal_models_are_spread_out():
    generator = np.random.default_rng(1)
    small = []
    for seed in range(40):
        target = [graph([("dog", A)])] * 40
        sides = [[target[0] if right else graph([]) for right in generator.random(40) < 0.5] for _ in range(2)]
        options = MetricOptions(task="det", bootstrap_samples=100, seed=seed)
        found = compare(pairs_of(sides[0], target), pairs_of(sides[1], target), options)
        small.append(found.metrics["object_recall"].p_value < 0.05)
    assert sum(small) <= 7  # 5 % of 40 are 2


@settings(max_examples=15)
@given(data_sets())
def test_accumulated_merged_and_pickled_is_evaluated_at_once(data):
    pairs = pairs_of(*data)
    metrics = [SceneGraphMetric(QUICK), SceneGraphMetric(QUICK)]
    for n, both in enumerate(pairs):
        metrics[n % 2].update(both.image_id, both.result, both.target)
    metrics[0].merge(pickle.loads(pickle.dumps(metrics[1])))
    assert metrics[0].compute().to_json() == evaluate(pairs, QUICK).to_json()


def test_accumulating_an_image_twice():
    metric = SceneGraphMetric(QUICK)
    metric.update("1", SceneGraph(), SceneGraph())
    with pytest.raises(ValueError, match="'1' was added already"):
        metric.update("1", None, SceneGraph())


def test_subsets_and_their_mean():
    right, wrong = graph([("dog", A)]), graph([("dog", B)])
    subsets = {"color": [pair(right, right, "1")], "logo": [pair(wrong, right, "1")]}
    report = evaluate_subsets(subsets, MetricOptions(task="det", bootstrap_samples=20))
    assert report.metrics["NMS-AP"].value == 1 / 2 and report.metrics["NMS-AP"].interval == (0.5, 0.5)
    assert report.metrics["NMS-AP/color"].value == 1 and report.counts["images"] == 2
    # a subset without a target has no say in the mean
    report = evaluate_subsets({**subsets, "none": [pair(wrong, graph([]), "1")]}, DETECTION)
    assert report.metrics["NMS-AP"].support == 2
