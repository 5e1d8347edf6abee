"""Rows of predictions: what is written is read back, and an odd row is read in the same way by every command."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given

from answers.strategies import graphs
from scenerl.answers import OutputFormat, write_answer
from scenerl.answers.dialogue import Conversation
from scenerl.commands.eval import EvalOptions
from scenerl.commands.merge import MergeOptions
from scenerl.errors import DataError
from scenerl.evaluate import run_eval
from scenerl.inference.engine import Reply
from scenerl.predictions import merge_file
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import (
    LAST,
    decode,
    decode_graph,
    decode_parsed,
    encode_graph,
    error_row,
    parse_row_answer,
    prediction_row,
    read_rows,
)
from scenerl.types import Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

FORMAT = OutputFormat(box_format="norm1000", provided="boxes")
EXAMPLE = Example("a", 101, 57, SceneGraph())
GRAPH = SceneGraph(
    (SceneObject("dog", (0, 1.23456, 10, 20)), SceneObject("red ball", (5, 5, 9, 9), 0.5)), (Relation(1, "near", 0),)
)


def row(name: str, sample: int = 0) -> dict:
    reply = Reply("dog 0 0 100 200\nend", 7, "stop")
    return prediction_row(replace(EXAMPLE, image_id=name), ParseResult("ok", GRAPH), reply, FORMAT, (112, 56), sample)


def test_a_row_holds_everything():
    issues = (Issue("bad_box", "line 3", "cat 1"),)
    result = ParseResult("ok", GRAPH, issues, True)
    assert prediction_row(EXAMPLE, result, Reply("text", 7, "length"), FORMAT, (112, 56), 2) == {
        "image_id": "a",
        "sample": 2,
        "file_name": None,
        "width": 101,
        "height": 57,
        "answer": "text",
        "status": "ok",
        "issues": [{"kind": "bad_box", "where": "line 3", "detail": "cat 1"}],
        "graph": {
            "objects": [
                {"id": "dog.1", "bbox": [0, 1.23, 10, 20]},
                {"id": "red ball.2", "bbox": [5, 5, 9, 9], "score": 0.5},
            ],
            "relationships": [{"subject": "red ball.2", "predicate": "near", "object": "dog.1"}],
        },
        "task": "sgcls",
        "frame": "norm1000",
        "input_wh": [112, 56],
        "num_tokens": 7,
        "finish_reason": "length",
    }


def test_a_detectors_objects_make_it_sgdet():
    assert row("a")["task"] == "sgcls"
    assert error_row(replace(EXAMPLE, provided=()), FORMAT, 0, "no such file")["task"] == "sgdet"


def test_the_row_of_an_image_without_answer_says_why():
    found = error_row(EXAMPLE, FORMAT, 0, "no such file")
    assert found.keys() - {"error"} == row("a").keys()
    assert (found["status"], found["answer"], found["graph"], found["error"]) == (
        "no_answer",
        None,
        None,
        "no such file",
    )


def test_the_score_of_a_relation_is_kept():
    scored = SceneGraph(GRAPH.objects, (Relation(0, "on", 1, 0.25),))
    assert encode_graph(scored)["relationships"][0]["score"] == 0.25


@given(graphs(True))
def test_what_is_encoded_is_decoded(graph):
    whole = SceneGraph(
        tuple(SceneObject(item.label, tuple(round(x, 2) for x in item.box), 0.5) for item in graph.objects),
        graph.relations,
    )
    notes = Notes("file")
    assert decode_graph(json.loads(json.dumps(encode_graph(whole))), "row 1", notes) == whole
    assert not notes.warnings()


def test_a_parsed_row_is_read_as_it_stands_and_a_raw_one_parsed(tmp_path):
    issues = (Issue("bad_box", "line 3", "cat 1"),)
    parsed = prediction_row(EXAMPLE, ParseResult("ok", GRAPH, issues), Reply("?", 1, "stop"), FORMAT, None)
    notes = Notes("file")
    found = decode(parsed, "row 1", Conversation(OutputFormat()), EXAMPLE, notes)
    assert found == decode_parsed(parsed, "row 1", notes)
    assert found.issues == issues and [item.label for item in found.graph.objects] == ["dog", "red ball"]
    failed = error_row(EXAMPLE, FORMAT, 0, "no such file")
    assert decode(failed, "row 1", Conversation(OutputFormat()), EXAMPLE, notes) == ParseResult("no_answer", None)


def test_the_size_and_the_box_format_of_a_row_take_precedence():
    target = SceneGraph((SceneObject("dog", (10, 20, 50, 40)),))
    example = Example("a", 100, 50, target)
    conversation = Conversation(OutputFormat(box_format="resized"), lambda wh: (100, 50))
    for box_format, input_wh in (("pixels", None), ("norm1000", None), ("resized", (200, 100))):
        answer = write_answer(target, OutputFormat(box_format=box_format), (100, 50), input_wh)
        row = {"answer": answer, "frame": box_format} | ({"input_wh": list(input_wh)} if input_wh else {})
        assert parse_row_answer(row, "row 1", conversation, example).graph == target
    with pytest.raises(DataError, match="row 1: the box format 'resized' needs input_wh"):
        parse_row_answer({"answer": "", "frame": "resized"}, "row 1", Conversation(OutputFormat()), example)


BAD_SCORES = [math.nan, math.inf, -math.inf, "0.5", True, [], 10**400]


@pytest.mark.parametrize("score", BAD_SCORES, ids=str)
def test_a_score_that_is_no_number_is_counted_and_ranks_last(tmp_path, capsys, score):
    """In `eval` and `merge` alike."""
    objects = [{"id": "dog.1", "bbox": [0, 0, 9, 9]}, {"id": "dog.2", "bbox": [50, 50, 60, 60], "score": 0.1}]
    graph = {"objects": [{**objects[0], "score": score}, objects[1]], "relationships": []}
    notes = Notes("file")
    decoded = decode_graph(json.loads(json.dumps(graph)), "row 1", notes)
    assert decoded.objects[0].score == LAST < decoded.objects[1].score
    assert notes.counts()["bad_scores"] == 1 and notes.warnings() == [
        "file: 1 scores are not finite numbers and rank last: row 1, objects[0]"
    ]
    pred, data, out = (tmp_path / name for name in ("p.jsonl", "d.jsonl", "m.json"))
    pred.write_text(
        "".join(json.dumps({"image_id": "a", "status": "ok", "graph": graph, "sample": n}) + "\n" for n in (0, 1))
    )
    target = {"image_id": "a", "width": 100, "height": 100, "query": ["dog"]}
    data.write_text(json.dumps({**target, "detections": [{"label": "dog", "bbox_2d": objects[1]["bbox"]}]}) + "\n")
    run_eval(EvalOptions(pred=pred, data=str(data), out=out, task="det", resamples=0))
    found = json.loads(out.read_text())
    assert found["counts"]["bad_scores"] == 1 and found["metrics"]["AP"]["value"] == 1
    capsys.readouterr()
    merge_file.run(MergeOptions(samples=pred, out=tmp_path / "merged.jsonl"))
    assert "2 scores are not finite numbers" in capsys.readouterr().err
    ((_, merged),) = read_rows(tmp_path / "merged.jsonl")
    assert sorted(item["score"] for item in merged["graph"]["objects"]) == [0, 0.1]


@pytest.mark.parametrize(
    "row",
    [{"status": "ok"}, {"image_id": "a"}, {"image_id": ["a"], "status": "ok"}, {"image_id": "a", "status": 3},
     {"image_id": "a", "status": "ok", "sample": "0"}],
)  # fmt: skip
def test_rows_that_predict_did_not_write_are_named(tmp_path, row):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps({'image_id': 7, 'status': 'ok'})}\n{json.dumps(row)}\n")
    rows = read_rows(path)
    assert next(rows) == (f"{path}, row 1", {"image_id": "7", "status": "ok", "sample": 0})
    with pytest.raises(DataError, match="row 2: not as predict writes it"):
        next(rows)
