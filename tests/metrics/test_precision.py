"""Precision, density, duplicates, hallucinations and failures on hand-computed cases."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics import reference
from metrics.graphs import QUICK, graph, pair, scene_graphs, values
from scenerl.answers import OutputFormat, parse_answer
from scenerl.metrics import MetricOptions, Pair, arrays, evaluate, precision, protocol
from scenerl.metrics.arrays import Codes, object_columns, relation_columns
from scenerl.metrics.groups import is_failed
from scenerl.types import ISSUES, Issue, ParseResult, SceneGraph

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


def test_precision_recall_and_f1_are_summed_over_images():
    target = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    # image 1: 1 of 2 relations right; image 2: 0 of 1 right
    first = graph([("dog", A), ("cat", B)], [(0, "on", 1), (1, "on", 0)])
    second = graph([("dog", A), ("cat", C), ("hat", B)], [(0, "on", 1)])
    found = values([pair(first, target, "1"), pair(second, target, "2")])
    assert found["triplet_precision"] == 1 / 3
    assert found["triplet_recall"] == 1 / 2
    assert found["triplet_f1"] == 2 * 1 / (3 + 2)
    assert found["relation_hallucination"] == 2 / 3
    # objects: 2 of 2 in image 1, 1 of 3 in image 2; 4 targets
    assert found["object_precision"] == 3 / 5
    assert found["object_recall"] == 3 / 4
    assert found["object_f1"] == 2 * 3 / (5 + 4)
    assert found["object_hallucination"] == 2 / 5
    assert found["relations_per_image"] == 3 / 2
    assert found["objects_per_image"] == 5 / 2


def test_object_matching_is_the_largest_and_greedy_is_greedy():
    # Wide overlaps both targets, 10/15 with the left and 10/12 with the right one; Right overlaps the right one only.
    left, right = ("dog", (0, 0, 10, 10)), ("dog", (0, 0, 12, 10))
    wide, other = ("dog", (0, 0, 11, 10)), ("dog", (3, 0, 12, 10))
    # wide: IoU 10/11 = 0.909 with left, 11/12 = 0.917 with right: greedy takes right;
    # other: 9/12 = 0.75 with right, 7/12 = 0.58 with left: greedy takes left. Both match either way here,
    found = values([pair(graph([wide, other]), graph([left, right]))])
    assert found["greedy_recall"] == found["object_recall"] == 1
    # but with a narrower second prediction (0.42 with left), greedy loses what the largest matching keeps.
    narrow = ("dog", (5, 0, 12, 10))  # 7/12 = 0.583 with right, 5/12 = 0.417 with left
    found = values([pair(graph([wide, narrow]), graph([left, right]))])
    assert found["greedy_recall"] == found["greedy_precision"] == 1 / 2
    assert found["object_recall"] == found["object_precision"] == 1


def count_duplicates(*found):
    columns = object_columns([entry.objects for entry in found], Codes()), relation_columns(found, Codes())
    return tuple(int(repeated.sum()) for repeated in precision.duplicates(*columns))


def test_duplicates():
    # dog 2 repeats dog 1 (IoU 0.9); cat is another label; the far dog is another place
    objects = [("dog", A), ("dog", (0, 0, 10, 9)), ("cat", A), ("dog", B)]
    assert count_duplicates(graph(objects, [])) == (1, 0)
    assert count_duplicates(graph(objects, [(0, "on", 2), (1, "on", 2)])) == (1, 1)
    assert count_duplicates(graph(objects, [(0, "on", 2), (1, "near", 2), (2, "on", 1), (3, "on", 2)])) == (1, 0)
    assert count_duplicates(graph(objects, [(0, "on", 2)] * 3)) == (1, 2)
    assert count_duplicates(SceneGraph()) == (0, 0)
    # never across images
    assert count_duplicates(graph(objects, [(0, "on", 2)]), graph(objects, [(1, "on", 2)])) == (2, 0)


def test_relations_that_repeat_nothing_take_a_step_each(monkeypatch):
    """A model that writes one predicate thousands of times must not cost a step for every pair of relations."""
    steps = []

    def counted(*keys):
        found = arrays.join(*keys)
        steps.append(len(found[0]))
        return found

    monkeypatch.setattr(precision, "join", counted)
    objects = [("dog", (20 * n, 0, 20 * n + 10, 10)) for n in range(100)]
    relations = [(n // 20, "on", 50 + n % 20) for n in range(1000)]
    assert count_duplicates(graph(objects, relations)) == (0, 0)
    assert sum(steps) == 2 * len(relations)  # once for their subjects, once for their objects


@given(st.lists(scene_graphs(max_objects=6, max_relations=12), max_size=4), st.sampled_from((1, 4_000_000)))
def test_duplicates_are_those_of_the_plain_definition(found, joined):
    """Also when pairs of relations are looked at in small parts."""
    objects = relations = 0
    for entry in found:
        same = [[reference.objects_agree(a, b) for b in entry.objects] for a in entry.objects]
        objects += sum(any(same[n][:n]) for n in range(len(entry.objects)))
        for n, one in enumerate(entry.relations):
            relations += any(
                one.predicate == other.predicate
                and (one.subject == other.subject or same[one.subject][other.subject])
                and (one.object == other.object or same[one.object][other.object])
                for other in entry.relations[:n]
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_JOINED", joined)
        assert count_duplicates(*found) == (objects, relations)


def test_duplicates_that_the_parser_dropped_count_too():
    dropped = (Issue("duplicate_relation", "relationships[1]"), Issue("duplicate_relation", "relationships[2]"))
    one = graph([("dog", A), ("cat", B)], [(0, "on", 1)])
    assert values([pair(one, one, issues=dropped)])["duplicates_per_image"] == 2


@pytest.mark.parametrize("kind", ISSUES)
def test_failure_rate_counts_invalid_elements_only(kind):
    counted = {"malformed_object", "malformed_relation", "bad_box", "no_area", "dangling_relation"}
    assert is_failed(ParseResult("ok", SceneGraph(), (Issue(kind, ""),))) == (kind in counted)


def test_what_was_dropped_for_its_label_takes_its_relations_along_without_a_failure():
    """R1-SGG skips both. The relation used to count as dangling, so that the whole answer failed."""
    output_format = OutputFormat("json", box_format="pixels", objects=("dog", "cat"), predicates=("on",))
    objects = [{"id": "dog.1", "bbox": [0, 0, 10, 10]}, {"id": "bird.2", "bbox": [20, 0, 30, 10]}]
    edge = {"subject": "dog.1", "predicate": "on", "object": "bird.2"}

    def failure_rate(relations):
        text = json.dumps({"objects": objects, "relationships": relations})
        result = parse_answer(text, output_format, (100, 100))
        options = MetricOptions(predicates=("on",), bootstrap_samples=0, **protocol("r1-sgg").settings)
        return evaluate([Pair("1", result, SceneGraph())], options).metrics["failure_rate"].value

    assert failure_rate([edge]) == 0
    assert failure_rate([edge, edge | {"object": "hat.9"}]) == 1


def test_failures_by_type():
    target = graph([("dog", A)])
    rows = [
        pair(target, target, "1"),
        pair(None, target, "2", "truncated"),
        pair(None, target, "3", "truncated"),
        pair(None, target, "4", "no_answer"),
        pair(target, target, "5", issues=(Issue("bad_box", "objects[1]"), Issue("unknown_label", "objects[2]"))),
    ]
    report = evaluate(rows, QUICK)
    assert report.metrics["failure_rate"].value == 4 / 5
    assert report.failures == {"truncated": 2, "no_answer": 1}
    assert report.issues == {"bad_box": 1, "unknown_label": 1}
    assert report.counts["failed_answers"] == 4


def test_dropped_elements_are_predictions_that_match_nothing():
    """Two objects of four and one relation of two are kept, and right."""
    target = graph([("dog", (0, 0, 9, 9)), ("cat", (20, 0, 29, 9))], [(0, "on", 1)])
    issues = [
        Issue("no_area", "objects[2]"),
        Issue("bad_box", "objects[3]"),
        Issue("dangling_relation", "relationships[1]"),
    ]
    found = values([pair(target, target, issues=tuple(issues))])
    assert found["object_precision"] == 2 / 4 and found["object_hallucination"] == 2 / 4
    assert found["triplet_precision"] == 1 / 2 and found["triplet_f1"] == 2 / 3
