"""Merging several answers into one: votes, scores and boxes worked out by hand, and what must always hold."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl import cli, matching
from scenerl.predictions.merge import merge_graphs
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_parsed, read_rows
from scenerl.types import Relation, SceneGraph, SceneObject

MAN, HORSE, FAR = (0, 0, 10, 20), (20, 0, 40, 20), (60, 60, 80, 80)


def graph(*objects, relations=()):
    return SceneGraph(tuple(SceneObject(*item) for item in objects), tuple(Relation(*item) for item in relations))


RIDES = graph(("man", MAN), ("horse", HORSE), relations=[(0, "riding", 1)])
NEAR = graph(("horse", HORSE), ("man", MAN), relations=[(1, "near", 0)])


def test_votes_of_objects_and_relations():
    merged = merge_graphs([RIDES, NEAR, RIDES, None], min_share=0)
    assert {item.label: item.score for item in merged.graph.objects} == {"man": 0.75, "horse": 0.75}
    scores = {merged.graph.triplet(item): item.score for item in merged.graph.relations}
    assert scores == {("man", "riding", "horse"): 0.5, ("man", "near", "horse"): 0.25}
    assert merged.object_votes == (3, 3) and merged.relation_votes == (2, 1)


def test_objects_without_a_partner_are_not_assigned(monkeypatch):
    """An assignment takes time with the cube of its size: hostile answers hold a thousand objects of one label."""
    sizes = []

    def assigned(cost_NM):
        sizes.append(cost_NM.shape)
        return matching.hungarian(cost_NM)

    monkeypatch.setattr("scenerl.predictions.merge.hungarian", assigned)
    rows = [graph(*(("dog", (30 * n, 30 * k, 30 * n + 10, 30 * k + 10)) for n in range(50))) for k in range(4)]
    answers = [SceneGraph((*row.objects, SceneObject("man", (0, 500, 9, 509)))) for row in rows]
    assert max(merge_graphs(answers, min_share=0).object_votes) == 4
    assert set(sizes) <= {(1, 1), (0, 0)}


@pytest.mark.parametrize(("share", "predicates"), [(0, 2), (0.25, 2), (0.26, 1), (0.5, 1), (0.51, 0)])
def test_what_has_too_few_votes_is_left_out(share, predicates):
    merged = merge_graphs([RIDES, NEAR, RIDES, None], min_share=share)
    assert len(merged.graph.objects) == 2 and len(merged.graph.relations) == predicates


def test_a_label_or_a_box_that_differs_is_another_object():
    answers = [graph(("man", MAN)), graph(("boy", MAN)), graph(("man", FAR)), graph(("man", (0, 0, 10, 9)))]
    assert merge_graphs(answers, min_share=0).object_votes == (1, 1, 1, 1)
    assert merge_graphs(answers, iou_threshold=0.45, min_share=0).object_votes == (2, 1, 1)


def test_the_box_is_the_median_of_the_votes():
    boxes = [(0, 0, 10, 20), (1, 0, 10, 22), (4, 2, 11, 21)]
    assert merge_graphs([graph(("man", box)) for box in boxes]).graph.objects[0].box == (1, 0, 10, 21)


def test_an_answer_votes_once_for_an_object_and_a_relation():
    twice = graph(("man", MAN), ("man", MAN), ("horse", HORSE), relations=[(0, "on", 2), (1, "on", 2)])
    merged = merge_graphs([twice, graph(("man", MAN), ("horse", HORSE), relations=[(0, "on", 1)])], min_share=0)
    assert sorted(zip((item.label for item in merged.graph.objects), merged.object_votes, strict=True)) == [
        ("horse", 2),
        ("man", 1),
        ("man", 2),
    ]
    assert sorted(merged.relation_votes) == [1, 2]


def test_crowded_objects_are_assigned_as_a_whole():
    """Taken one by one, the first of the second answer would take the nearest and leave the other without a partner."""
    a = graph(("cup", (0, 0, 10, 10)), ("cup", (4, 0, 14, 10)))
    b = graph(("cup", (2.5, 0, 12.5, 10)), ("cup", (-2, 0, 8, 10)))
    assert merge_graphs([a, b], iou_threshold=0.4, min_share=0).object_votes == (2, 2)


def test_scores_are_averaged_and_absence_counts_as_zero():
    sure, unsure = graph(("man", MAN, 0.9)), graph(("man", MAN, 0.5))
    assert merge_graphs([sure, unsure, None, graph()]).graph.objects[0].score == pytest.approx(0.35)
    assert merge_graphs([sure, graph(("man", MAN))]).graph.objects[0].score == pytest.approx(0.95)
    assert merge_graphs([graph(("man", MAN, float("-inf"))), sure]).graph.objects[0].score == pytest.approx(0.45)


def test_no_answer_that_can_be_read_is_no_empty_answer():
    assert merge_graphs([None, None]) is None and merge_graphs([]) is None
    assert merge_graphs([None, graph()]).graph == graph()


numbers = st.integers(0, 12).map(lambda n: n * 4.0)
boxes = st.tuples(numbers, numbers, st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: (b[0], b[1], b[0] + 4.0 * b[2], b[1] + 4.0 * b[3])
)


@st.composite
def graphs(draw, scored=None):
    score = draw(st.sampled_from([st.none(), st.floats(0, 1)])) if scored is None else scored
    objects = draw(st.lists(st.builds(SceneObject, st.sampled_from("ab"), boxes, score), max_size=5))
    pairs = list(itertools.permutations(range(len(objects)), 2))
    chosen = (
        draw(st.lists(st.tuples(st.sampled_from(pairs), st.sampled_from("xy")), max_size=4, unique=True))
        if (pairs)
        else []
    )
    relations = [Relation(subject, predicate, object_, draw(score)) for (subject, object_), predicate in chosen]
    return SceneGraph(tuple(objects), tuple(relations))


answers = st.lists(st.one_of(st.none(), graphs()), min_size=1, max_size=5)


@settings(max_examples=40)
@given(answers, st.randoms(), st.sampled_from([0, 0.25, 0.5]))
def test_the_order_of_the_answers_does_not_matter(given_answers, random, share):
    shuffled = random.sample(given_answers, len(given_answers))
    assert merge_graphs(shuffled, min_share=share) == merge_graphs(given_answers, min_share=share)


@settings(max_examples=40)
@given(graphs(st.none()), st.integers(1, 7), st.floats(0, 1))
def test_equal_answers_give_that_answer_with_score_1(one, count, share):
    merged = merge_graphs([one] * count, min_share=share)
    assert [(item.label, item.box) for item in merged.graph.objects] == [(item.label, item.box) for item in one.objects]
    assert [(item.subject, item.predicate, item.object) for item in merged.graph.relations] == [
        (item.subject, item.predicate, item.object) for item in one.relations
    ]
    assert {item.score for item in (*merged.graph.objects, *merged.graph.relations)} <= {1.0}
    assert {*merged.object_votes, *merged.relation_votes} <= {count}


@settings(max_examples=40)
@given(graphs(st.floats(0, 1)))
def test_one_answer_with_scores_stays_as_it_is(one):
    assert merge_graphs([one], min_share=1).graph == one


@settings(max_examples=40)
@given(answers.filter(lambda some: any(item is not None for item in some)))
def test_a_failed_answer_lowers_scores_and_changes_nothing_else(some):
    before, after = merge_graphs(some, min_share=0), merge_graphs([*some, None], min_share=0)
    assert (after.object_votes, after.relation_votes) == (before.object_votes, before.relation_votes)
    for was, now in zip(
        (*before.graph.objects, *before.graph.relations), (*after.graph.objects, *after.graph.relations), strict=True
    ):
        assert now.score == pytest.approx(was.score * len(some) / (len(some) + 1))
    assert [(item.label, item.box) for item in after.graph.objects] == [
        (item.label, item.box) for item in before.graph.objects
    ]


@settings(max_examples=40)
@given(answers, st.floats(0, 1))
def test_votes_and_scores_are_possible(some, share):
    merged = merge_graphs(some, min_share=share)
    if merged is None:
        return
    graph_ = merged.graph
    assert all(
        share * len(some) - 1e-6 <= votes <= len(some) for votes in (*merged.object_votes, *merged.relation_votes)
    )
    assert all(0 <= item.score <= 1 for item in (*graph_.objects, *graph_.relations))
    triplets = [(item.subject, item.predicate, item.object) for item in graph_.relations]
    assert len(set(triplets)) == len(triplets)
    for relation, votes in zip(graph_.relations, merged.relation_votes, strict=True):
        assert votes <= min(merged.object_votes[relation.subject], merged.object_votes[relation.object])


def row(image_id, sample, objects=(), status="ok", **more):
    graph_ = {"objects": [{"id": f"{label}.1", "bbox": box} for label, box in objects], "relationships": []}
    return {
        "image_id": image_id,
        "sample": sample,
        "width": 100,
        "height": 80,
        "answer": "…",
        "status": status,
        "issues": [],
        "graph": graph_ if status == "ok" else None,
        "frame": "norm1000",
        "num_tokens": 5,
        **more,
    }


def merge(tmp_path, rows, *words):
    samples, out = tmp_path / "samples.jsonl", tmp_path / "merged.jsonl"
    samples.write_text("".join(json.dumps(item) + "\n" for item in rows))
    code = cli.main(["merge", str(samples), "--out", str(out), *words])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else None


def test_files(tmp_path, capsys):
    rows = [
        row("b", 0, [("man", MAN)]),
        row("b", 1, [("man", MAN), ("dog", FAR)]),
        row("a", 1, status="truncated"),
        row("a", 0, status="empty"),
        row("b", 2, status="empty"),
        row("a", 2, status="truncated"),
    ]
    code, (b, a) = merge(tmp_path, rows, "--min_share", "0.5")
    assert code == 0 and capsys.readouterr().err == ""
    assert b["graph"]["objects"] == [{"id": "man.1", "bbox": list(map(float, MAN)), "score": 2 / 3, "votes": 2}]
    assert (b["image_id"], b["status"], b["answers"], b["failed"], b["num_tokens"]) == ("b", "ok", 3, 1, 15)
    assert (a["image_id"], a["status"], a["graph"], a["failed"]) == ("a", "truncated", None, 3)
    assert "answer" not in b


def test_an_answer_that_arrived_makes_up_for_one_that_did_not(tmp_path):
    lost = [row("a", k, status="no_answer", error="no route to the server") for k in range(2)]
    _, (merged,) = merge(tmp_path, [lost[0], row("a", 1, [("man", MAN)])])
    assert (merged["status"], merged["failed"]) == ("ok", 1) and "error" not in merged
    _, (merged,) = merge(tmp_path, lost)
    assert (merged["status"], merged["error"]) == ("no_answer", "no route to the server")


def test_merged_rows_are_read_like_those_of_predict(tmp_path):
    _, merged = merge(tmp_path, [row("a", k, [("man", MAN)]) for k in range(2)])
    ((where, read),) = read_rows(tmp_path / "merged.jsonl")
    assert read == merged[0]
    assert decode_parsed(read, where, Notes(where)).graph == graph(("man", MAN, 1.0))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row("a", 0)], "no image with several answers"),
        ([], "no image with several answers"),
        ([row("a", 0), row("a", 0)], "row 2: image 'a' has a sample 0 already"),
        ([row("a", 0), {"image_id": "a", "sample": 1, "answer": "{}"}], "row 2: not as predict writes it"),
        ([row("a", 0), row("a", 1, [("man", [0, 0, "x", 1])])], "row 2: "),
        ([row("a", 0), row("a", [1])], "row 2: not as predict writes it"),
    ],
)
def test_bad_files_are_named(tmp_path, capsys, rows, says):
    code, merged = merge(tmp_path, rows)
    error = capsys.readouterr().err
    assert code == 2 and merged is None
    assert "samples.jsonl" in error and says in error and error.count("\n") == 1


def test_images_with_fewer_answers_are_told(tmp_path, capsys):
    code, merged = merge(tmp_path, [row("a", 0), row("a", 1), row("b", 0)])
    assert code == 0 and len(merged) == 2
    assert "1 of 2 images have fewer than 2 answers" in capsys.readouterr().err


def test_the_samples_are_not_overwritten(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row("a", 0)) + "\n")
    assert cli.main(["merge", str(path), "--out", str(path)]) == 2
    assert "is read by this command and would be overwritten" in capsys.readouterr().err


def test_a_folder_is_refused_before_the_answers_are_read(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    path.write_text("no answers")
    assert cli.main(["merge", str(path), "--out", str(tmp_path)]) == 2
    assert f"out: {tmp_path} is a folder; expected the name of a file" in capsys.readouterr().err
