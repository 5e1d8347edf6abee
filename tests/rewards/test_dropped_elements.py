"""Elements that the parser drops count as predictions that match nothing, in every reward and in the metrics.

They used to cost nothing, so a policy could learn to write junk.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from scenerl.inference.rows import prediction_row

from scenerl.answers import OutputFormat, parse_answer
from scenerl.inference.engine import Reply
from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.rewards import REWARDS, Comparison
from scenerl.types import Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

WH = (100, 100)
DETECTIONS = OutputFormat("detections", box_format="pixels")
GRAPH = OutputFormat("json", box_format="pixels", objects=("dog", "cat"), predicates=("on",))
A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
TARGET = SceneGraph((SceneObject("dog", A), SceneObject("cat", B)), (Relation(0, "on", 1),))

GOOD = [{"bbox_2d": list(box), "label": label} for label, box in (("dog", A), ("cat", B))]
JUNK = [{"bbox_2d": [5, 5, 5, 9], "label": "dog"}] * 20
OBJECTS = [{"id": "dog.1", "bbox": list(A)}, {"id": "cat.2", "bbox": list(B)}]
EDGE = {"subject": "dog.1", "predicate": "on", "object": "cat.2"}


def detections(*items) -> ParseResult:
    return parse_answer(json.dumps(list(items)), DETECTIONS, WH)


def scene(objects, relations) -> ParseResult:
    return parse_answer(json.dumps({"objects": objects, "relationships": relations}), GRAPH, WH)


def value(name: str, result: ParseResult, target: SceneGraph = TARGET) -> float:
    return REWARDS[name](Comparison(result, target, WH, text="{}"))


def test_boxes_without_area_cost_length_and_completeness():
    clean, padded = detections(*GOOD), detections(*GOOD, *JUNK)
    assert padded.num_dropped_objects == 20 and padded.graph == clean.graph
    assert value("od_length", clean) == 1.0
    assert value("od_length", padded) == pytest.approx(2 / 22)  # as VLM-R1's code has it
    assert value("weighted_sum", padded) == pytest.approx(0.7 + 0.3 * (1 - (0 + 20 / 22) / 2))
    assert value("hallucination", replace(padded)) == pytest.approx(20 / 22)
    assert value("box_count", padded) == pytest.approx(2 / 22)
    assert value("repetition", padded) == pytest.approx(3 / 22 - 1)  # two boxes, and one piece of junk twenty times
    assert value("ap", padded) == 1.0
    # against an empty target nothing but an empty answer is right
    for name in ("ap", "ap50", "od_length", "weighted_sum", "box_count"):
        assert value(name, detections(), SceneGraph()) == 1.0
        assert value(name, detections(*JUNK), SceneGraph()) == 0.0


@pytest.mark.parametrize(
    ("objects", "relations", "dropped"),
    [
        ([], [{"subject": "dog.1", "predicate": "on", "object": "hat.9"}], (0, 1)),
        ([], [EDGE | {"predicate": "under"}, EDGE | {"predicate": 3}], (0, 2)),
        ([], [EDGE, EDGE], (0, 2)),
        ([], [EDGE | {"object": "dog.1"}], (0, 1)),
        ([{"id": "bird.3", "bbox": list(A)}], [EDGE | {"object": "bird.3"}], (1, 1)),
        ([{"id": "dog.4"}, {"id": "dog.5", "bbox": [0, 0, 1]}, {"id": "dog.1", "bbox": list(A)}], [], (3, 0)),
    ],
)
def test_dropped_objects_and_relations_cost_precision(objects, relations, dropped):
    clean, padded = scene(OBJECTS, [EDGE]), scene(OBJECTS + objects, [EDGE, *relations])
    assert padded.graph == clean.graph
    assert (padded.num_dropped_objects, padded.num_dropped_relations) == dropped
    num_objects, num_relations = dropped
    for name in ("triplet_precision", "triplet_f1", "triplet_f_beta"):
        assert value(name, clean) == 1.0
    assert value("triplet_precision", padded) == pytest.approx(1 / (1 + num_relations))
    assert value("triplet_f1", padded) == value("triplet_f_beta", padded) == pytest.approx(2 / (2 + num_relations))
    assert value("hallucination", padded) == pytest.approx(1 - 3 / (3 + num_objects + num_relations))
    assert value("repetition", padded) <= 0
    for name in ("hard_recall", "relaxed_recall", "soft_recall", "node_label", "node_box"):
        assert value(name, padded) == 1.0  # recall does not charge
    metrics = evaluate([Pair("1", padded, TARGET)], MetricOptions(bootstrap_samples=0)).metrics
    assert metrics["triplet_precision"].value == pytest.approx(1 / (1 + num_relations))
    assert metrics["triplet_f1"].value == pytest.approx(2 / (2 + num_relations))
    assert (
        metrics["object_precision"].value == metrics["greedy_precision"].value == pytest.approx(2 / (2 + num_objects))
    )
    assert metrics["object_f1"].value == metrics["F1@0.5"].value == pytest.approx(4 / (4 + num_objects))
    assert metrics["object_hallucination"].value == pytest.approx(num_objects / (2 + num_objects))
    assert metrics["triplet_recall"].value == metrics["R@50"].value == 1.0


def test_an_answer_of_junk_alone_is_no_empty_answer():
    padded = scene([], [EDGE])
    assert value("triplet_precision", padded, SceneGraph()) == 0.0
    assert value("triplet_precision", scene([], []), SceneGraph()) == 1.0


def test_a_repeated_relation_that_was_dropped_is_a_duplicate_and_no_hallucination():
    metrics = evaluate([Pair("1", scene(OBJECTS, [EDGE] * 3), TARGET)], MetricOptions(bootstrap_samples=0)).metrics
    assert metrics["duplicates_per_image"].value == 2
    assert metrics["relation_hallucination"].value == 0
    assert metrics["triplet_precision"].value == pytest.approx(1 / 3)


def test_failed_answers_and_unknown_kinds_of_issues_count_nothing_more():
    failed = parse_answer(json.dumps(GOOD + JUNK), DETECTIONS, WH, strict=True)
    assert failed.issues and not failed.ok
    assert value("hallucination", failed) == 1.0
    odd = ParseResult("ok", TARGET, (Issue("from_another_version", "somewhere", "text"),))
    assert value("triplet_precision", odd) == value("od_length", odd) == 1.0
    assert value("repetition", odd) == 0.0


def test_what_was_dropped_survives_predicts_rows():
    """`eval` of an answer and of the row that `predict` writes of it give the same precision."""
    result = scene(OBJECTS + [{"id": "dog.7", "bbox": [3, 3, 3, 3]}], [EDGE, EDGE | {"object": "bird.9"}])
    row = prediction_row(Example("1", *WH, TARGET), result, Reply("{}", 5, "stop"), GRAPH, WH)
    issues = tuple(Issue(**issue) for issue in json.loads(json.dumps(row))["issues"])
    again = ParseResult("ok", result.graph, issues)
    assert (again.num_dropped_objects, again.num_dropped_relations) == (1, 1)
    assert {name: value(name, again) for name in REWARDS} == {name: value(name, result) for name in REWARDS}
