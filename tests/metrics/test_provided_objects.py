"""SGCls and PredCls: answers are matched with the provided objects by box and label; order only breaks ties."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.graphs import QUICK, graph, pair, scene_graphs, values
from scenerl.metrics import evaluate
from scenerl.metrics.provided_objects import provided_places
from scenerl.types import SceneGraph

A, B, C, D = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)
THREE = [("dog", A), ("cat", B), ("hat", C)]
TARGET = graph(THREE, [(0, "on", 1), (1, "near", 2), (0, "near", 2), (2, "on", 0)])


def reordered(found: SceneGraph, order: list[int]) -> SceneGraph:
    """The same graph with its objects listed in another order."""
    place = {old: new for new, old in enumerate(order)}
    relations = [e._replace(subject=place[e.subject], object=place[e.object]) for e in found.relations]
    return SceneGraph(tuple(found.objects[old] for old in order), tuple(relations))


@pytest.mark.parametrize("task", ["sgcls", "predcls"])
def test_a_perfect_answer_in_another_order_is_perfect(task):
    """Objects used to be paired by position whenever their numbers agreed, which scored 0 here."""
    options = dataclasses.replace(QUICK, task=task)
    for order in itertools.permutations(range(3)):
        found = values([pair(reordered(TARGET, list(order)), TARGET)], options)
        assert found["R@20"] == found["triplet_precision"] == found["object_f1"] == 1


@given(scene_graphs(), st.randoms(use_true_random=False), st.sampled_from(["sgcls", "predcls"]))
def test_the_order_of_objects_does_not_matter(target, random, task):
    order = list(range(len(target.objects)))
    random.shuffle(order)
    places = provided_places(reordered(target, order), target, task)
    assert len(places) == len(target.objects)
    for n, m in places.items():
        assert target.objects[order[n]] == target.objects[m]


def test_equal_objects_keep_their_order():
    twice = graph([("dog", A), ("dog", A), ("cat", B)], [(0, "on", 2), (1, "near", 2)])
    assert provided_places(twice, twice, "sgcls") == {0: 0, 1: 1, 2: 2}
    missing = graph([("dog", D), ("dog", D), ("dog", D)])
    assert provided_places(missing, graph(THREE), "sgcls") == {0: 0, 1: 1, 2: 2}


def test_labels_decide_in_predcls_and_boxes_in_sgcls():
    target = graph([("dog", (0, 0, 10, 10)), ("cat", (0, 0, 10, 7))])
    swapped = graph([("cat", (0, 0, 10, 10)), ("dog", (0, 0, 10, 7))])
    assert provided_places(swapped, target, "sgcls") == {0: 0, 1: 1}
    assert provided_places(swapped, target, "predcls") == {0: 1, 1: 0}


def test_provided_boxes_and_labels():
    # the same three objects in order, boxes off, one label wrong
    off = [("dog", D), ("hat", D), ("hat", D)]
    predicted = graph(off, [(0, "on", 1), (0, "near", 2)])
    found = {
        task: values([pair(predicted, TARGET)], dataclasses.replace(QUICK, task=task))["R@20"]
        for task in ("sgdet", "sgcls", "predcls")
    }
    # SGCls: (0, near, 2) has the right labels; PredCls: (0, on, 1) too
    assert found == {"sgdet": 0, "sgcls": 1 / 4, "predcls": 2 / 4}


def test_provided_objects_in_another_number_are_found_by_overlap():
    # the answer lists two of three objects, cat first
    predicted = graph([("cat", (21, 0, 31, 10)), ("hat", (39, 0, 50, 10)), ("dog", (90, 90, 95, 95)),
                       ("dog", (80, 90, 85, 95))], [(0, "near", 1), (2, "on", 0)])  # fmt: skip
    report = evaluate([pair(predicted, TARGET)], dataclasses.replace(QUICK, task="predcls"))
    assert report.metrics["R@20"].value == 1 / 4
    assert report.counts["predicted_objects"] == 2 and report.counts["predicted_relations"] == 1


def test_in_sgcls_an_equal_label_decides_between_equal_boxes():
    box = (0, 0, 10, 10)
    predicted, target = graph([("cat", box), ("dog", box)]), graph([("dog", box), ("cat", box)])
    assert provided_places(predicted, target, "sgcls") == {0: 1, 1: 0}
