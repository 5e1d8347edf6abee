"""Scoring: rows with answers in, rewards and matches out; bad rows named, the others kept."""

from __future__ import annotations

import json

import pytest

from scenerl.answers import OutputFormat, parse_answer, write_answer
from scenerl.answers.dialogue import Conversation
from scenerl.commands.score import ScoreOptions
from scenerl.data.rows import read_row
from scenerl.errors import DataError
from scenerl.inference.engine import Reply
from scenerl.predictions.row import prediction_row
from scenerl.rewards import RELATION_REWARDS, REWARDS
from scenerl.score import run_score, score_row

ROW = {
    "image_id": "7",
    "file_name": "7.jpg",
    "width": 200,
    "height": 100,
    "objects": [
        {"id": "man.1", "bbox": [0, 0, 40, 40]},
        {"id": "bike.2", "bbox": [20, 0, 60, 40]},
        {"id": "dog.3", "bbox": [100, 60, 160, 100]},
    ],
    "relationships": [
        {"subject": "man.1", "predicate": "on", "object": "bike.2"},
        {"subject": "dog.3", "predicate": "near", "object": "man.1"},
    ],
}
DETECTION_ROW = {
    "image_id": "8",
    "width": 200,
    "height": 100,
    "query": ["cat", "dog"],
    "detections": [{"label": "cat", "bbox_2d": [0, 0, 40, 40]}],
}
ANSWER = {
    "objects": [
        {"id": "man.1", "bbox": [0, 0, 40, 40]},
        {"id": "cow.2", "bbox": [20, 0, 60, 40]},
        {"id": "dog.3", "bbox": [100, 60, 160, 100]},
        {"id": "bad.4", "bbox": [9, 9, 9, 9]},
    ],
    "relationships": [
        {"subject": "man.1", "predicate": "on", "object": "cow.2"},
        {"subject": "dog.3", "predicate": "near", "object": "man.1"},
    ],
}
PIXELS = OutputFormat(box_format="pixels")


def write_rows(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scored(row, output_format=PIXELS, **kwargs) -> dict:
    found = score_row(row, "rows.jsonl, row 1", Conversation(output_format), **kwargs)
    return json.loads(json.dumps(found.output, allow_nan=False))


def gold_answer(row, output_format, input_wh=None) -> str:
    example = read_row(row, "row").unwrap()
    return write_answer(example.graph, output_format, example.image_wh, input_wh)


def test_an_answer_with_a_wrong_label_and_a_bad_box():
    output = scored({**ROW, "answer": json.dumps(ANSWER)})
    assert output["image_id"] == "7"
    assert output["status"] == "ok"
    assert [(issue["kind"], issue["where"]) for issue in output["issues"]] == [("no_area", "objects[3]")]
    assert output["rewards"].keys() == REWARDS.keys()
    assert output["rewards"]["format"] == 0.0  # there is an issue
    assert output["rewards"]["node_label"] == pytest.approx(2 / 3)
    assert output["rewards"]["node_box"] == 1.0
    assert output["rewards"]["hard_recall"] == 0.5  # the cow is no bike
    assert output["matches"] == {
        "objects": [
            {"label": "man", "target": 0, "iou": 1.0, "similarity": 1.0, "hit": True, "ignored": False},
            {"label": "cow", "target": 1, "iou": 1.0, "similarity": 0.0, "hit": False, "ignored": False},
            {"label": "dog", "target": 2, "iou": 1.0, "similarity": 1.0, "hit": True, "ignored": False},
        ],
        "relations": [
            {"triplet": ["man", "on", "cow"], "target": None, "boxes_agree": [0]},
            {"triplet": ["dog", "near", "man"], "target": 1, "boxes_agree": [1]},
        ],
    }


def test_an_element_costs_itself_only_unless_strict():
    row = {**ROW, "answer": json.dumps(ANSWER)}
    assert scored(row)["status"] == "ok"
    assert scored(row, strict=True)["status"] == "wrong_schema"


@pytest.mark.parametrize(("answer", "status"), [(None, "no_answer"), ("", "empty"), ("no idea", "invalid_json")])
def test_failures_have_a_status_and_no_rewards(answer, status):
    output = scored({**ROW, "answer": answer})
    assert output["status"] == status
    assert output["rewards"]["hard_recall"] == output["rewards"]["format"] == 0.0
    assert output["matches"] == {"objects": [], "relations": []}


@pytest.mark.parametrize("template", ["plain", "think"])
@pytest.mark.parametrize("form", ["json", "compact"])
@pytest.mark.parametrize("box_format", ["pixels", "norm1000", "resized"])
def test_gold_in_every_format_and_box_format(form, template, box_format):
    # Whole pixels and sizes that divide evenly: nothing is lost to rounding.
    output_format = OutputFormat(format=form, template=template, box_format=box_format)
    row = {**ROW, "input_wh": [400, 200]}
    output = scored({**row, "answer": gold_answer(row, output_format, (400, 200))}, output_format)
    assert output["status"] == "ok"
    for name in REWARDS.keys() - {"hallucination", "repetition", "cosine_length"}:
        assert output["rewards"][name] == pytest.approx(1.0, abs=1e-12), name
    assert output["rewards"]["hallucination"] == output["rewards"]["repetition"] == 0.0
    assert [match["target"] for match in output["matches"]["relations"]] == [0, 1]


def test_strict_turns_issues_into_failures_and_needs_the_template(tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    good = gold_answer(ROW, PIXELS)
    write_rows(rows, [{**ROW, "answer": json.dumps(ANSWER)}, {**ROW, "answer": f"Here you are: {good}"}])
    run_score(ScoreOptions(rows=rows, out=out, frame="pixels"))
    lenient = read_rows(out)
    assert [row["status"] for row in lenient] == ["ok", "ok"]
    assert [row["rewards"]["format"] for row in lenient] == [0.0, 0.5]
    run_score(ScoreOptions(rows=rows, out=out, frame="pixels", strict=True))
    strict = read_rows(out)
    assert [row["status"] for row in strict] == ["wrong_schema", "ok"]
    assert [row["rewards"]["format"] for row in strict] == [0.0, 0.0]


def test_detections_leave_the_relation_rewards_out(tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    answer = json.dumps([{"bbox_2d": [0, 0, 40, 40], "label": "cat"}, {"bbox_2d": [0, 0, 9, 9], "label": "dog"}])
    write_rows(rows, [{**DETECTION_ROW, "answer": answer}, {**DETECTION_ROW, "detections": [], "answer": "None"}])
    run_score(ScoreOptions(rows=rows, out=out, format="detections", frame="pixels"))
    two_boxes, nothing = (row["rewards"] for row in read_rows(out))
    assert two_boxes.keys() == REWARDS.keys() - RELATION_REWARDS
    assert (two_boxes["ap"], two_boxes["od_length"]) == (1.0, 0.5)
    assert nothing["ap"] == nothing["od_length"] == nothing["weighted_sum"] == 1.0


def test_rewards_and_conventions_can_be_chosen(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    vectors, counts = tmp_path / "vectors.txt", tmp_path / "counts.json"
    vectors.write_text("man 1 0\ndog 0 1\nbike 0.6 0.8\ncow 0.8 0.6\n", encoding="utf-8")
    counts.write_text('{"on": 9, "near": 1}', encoding="utf-8")
    write_rows(rows, [{**ROW, "answer": json.dumps(ANSWER)}])
    options = {"rows": rows, "out": out, "frame": "pixels", "similarity": f"vectors:{vectors}"}
    run_score(ScoreOptions(**options, rewards=["node_label", "predicate_weighted_recall"], predicate_counts=counts))
    # cow and bike: 0.6 * 0.8 + 0.8 * 0.6 = 0.96; "near" weighs 3 beside 1
    assert read_rows(out)[0]["rewards"] == {
        "node_label": pytest.approx(2.96 / 3),
        "predicate_weighted_recall": pytest.approx(3 / 4),
    }
    assert "1 answer (1 ok)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown reward 'recall' .did you mean soft_recall"):
        run_score(ScoreOptions(**options, rewards=["recall"]))


def test_a_closed_vocabulary(tmp_path):
    rows, out, vocabulary = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "vocabulary.json"
    vocabulary.write_text('{"objects": ["man", "bike", "dog"], "predicates": ["on", "near"]}', encoding="utf-8")
    write_rows(rows, [{**ROW, "answer": json.dumps(ANSWER)}])
    run_score(ScoreOptions(rows=rows, out=out, frame="pixels", vocabulary=vocabulary))
    kinds = [issue["kind"] for issue in read_rows(out)[0]["issues"]]
    assert "unknown_label" in kinds


def test_truncation_and_length_come_from_the_row():
    cut = gold_answer(ROW, PIXELS)[:-40]
    assert scored({**ROW, "answer": cut, "finish_reason": "length"})["status"] == "truncated"
    gold = {**ROW, "answer": gold_answer(ROW, PIXELS)}
    assert scored({**gold, "num_tokens": 0})["rewards"]["cosine_length"] == 1.0
    assert scored({**gold, "num_tokens": 1024})["rewards"]["cosine_length"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 3}, "answer must be a text or null, found 3"),
        ({"answer": ["x"]}, "answer must be a text or null"),
        ({"num_tokens": -1}, "num_tokens must be a whole number from 0 on, found -1"),
        ({"num_tokens": True}, "num_tokens"),
        ({"input_wh": [0, 10]}, "input_wh must be"),
        ({"input_wh": [10**400, 10]}, "input_wh must be"),
        ({"input_wh": "10x10"}, "input_wh must be"),
        ({"width": 0}, "width must be"),
    ],
)
def test_rows_that_cannot_be_used_say_why(change, message):
    with pytest.raises(DataError, match=message) as caught:
        score_row({**ROW, "answer": "x", **change}, "rows.jsonl, row 5", Conversation(PIXELS))
    assert str(caught.value).startswith("rows.jsonl, row 5: ")


def test_a_row_without_an_answer_is_refused():
    with pytest.raises(DataError, match="row 1: the key 'answer' is missing"):
        score_row(ROW, "row 1", Conversation(PIXELS))


def test_resized_needs_its_size():
    with pytest.raises(DataError, match="row 1: the box format 'resized' needs input_wh"):
        score_row({**ROW, "answer": "x"}, "row 1", Conversation(OutputFormat(box_format="resized")))


def test_bad_rows_are_named_and_the_others_scored(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    good = {**ROW, "answer": gold_answer(ROW, PIXELS)}
    without_width = {key: value for key, value in good.items() if key != "width"}
    write_rows(rows, [good, without_width, ROW, good])
    with pytest.raises(DataError, match=r"2 rows left out, as unusable.*row 2.*'width'"):
        run_score(ScoreOptions(rows=rows, out=out, frame="pixels"))
    assert len(read_rows(out)) == 2
    shown = capsys.readouterr().err
    assert "row 2" in shown
    assert "row 3" in shown


def test_a_line_that_is_no_json_costs_itself_only(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    good = json.dumps({**ROW, "answer": None}).encode()
    rows.write_bytes(b"\n".join([good, b"{broken", b"[1]", b'{"answer": "\xff"}', b"", good, good[:40]]))
    with pytest.raises(DataError, match=r"4 rows left out, as unusable, the first: .*row 2: not JSON"):
        run_score(ScoreOptions(rows=rows, out=out))
    assert len(read_rows(out)) == 2
    shown = capsys.readouterr().err
    for row, wrong in ((2, "not JSON"), (3, "a row must be a JSON object"), (4, "not UTF-8"), (7, "not JSON")):
        assert f"{rows}, row {row}: {wrong}" in shown


def test_reading_stops_where_the_file_cannot_be_read_further(tmp_path, monkeypatch):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    good = json.dumps({**ROW, "answer": None})
    write_rows(rows, [{**ROW, "answer": None}, {**ROW, "answer": "x" * 1000}])
    monkeypatch.setattr("scenerl.data.jsonl.MAX_ROW_BYTES", len(good) + 10)
    with pytest.raises(DataError, match="row 2: longer than .*; reading stopped there"):
        run_score(ScoreOptions(rows=rows, out=out))
    assert len(read_rows(out)) == 1


def predicted(row, answer, output_format=PIXELS, sample=0, input_wh=(100, 50), **changes) -> dict:
    """A row as `predict` writes it."""
    example = read_row(row, "row").unwrap()
    result = parse_answer(answer, output_format, example.image_wh, input_wh)
    reply = Reply(answer, 7, "stop")
    return {**prediction_row(example, result, reply, output_format, input_wh, sample), **changes}


def test_predictions_are_joined_with_their_ground_truth(tmp_path, capsys):
    rows, data, out = tmp_path / "predictions.jsonl", tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    other = {**ROW, "image_id": "the  other", "objects": ROW["objects"][:1], "relationships": []}
    write_rows(data, [ROW, other, {**ROW, "image_id": "9"}])
    # The frame of each row counts, not that of the options: 1000 is right in one, 200 in the other.
    norm1000 = OutputFormat(box_format="norm1000")
    write_rows(
        rows,
        [
            predicted(ROW, json.dumps(ANSWER), sample=1),
            predicted(ROW, gold_answer(ROW, norm1000), norm1000),
            predicted(other, "no idea"),
        ],
    )
    run_score(ScoreOptions(rows=rows, data=str(data), out=out, frame="norm1"))
    first, gold, failed = read_rows(out)
    assert (first["image_id"], first["sample"], first["rewards"]["hard_recall"]) == ("7", 1, 0.5)
    assert first == {**scored({**ROW, "answer": json.dumps(ANSWER), "num_tokens": 7}), "sample": 1}
    assert (gold["sample"], gold["rewards"]["hard_recall"], gold["rewards"]["node_box"]) == (0, 1.0, 1.0)
    assert (failed["image_id"], failed["status"]) == ("the other", "invalid_json")
    assert "1 image of" in capsys.readouterr().err  # image 9


def test_ground_truth_may_be_another_projects_file(tmp_path):
    instances = {
        "images": [{"id": 8, "file_name": "8.jpg", "width": 200, "height": 100}],
        "annotations": [{"id": 1, "image_id": 8, "category_id": 3, "bbox": [0, 0, 40, 40], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    rows, data, out = tmp_path / "rows.jsonl", tmp_path / "instances.json", tmp_path / "out.jsonl"
    data.write_text(json.dumps(instances))
    answer = '[{"bbox_2d": [0, 0, 40, 40], "label": "cat"}, {"bbox_2d": [0, 0, 9, 9], "label": "lamp"}]'
    write_rows(rows, [{"image_id": 8, "answer": answer}])
    for source in (data, f"coco:{data}"):
        run_score(ScoreOptions(rows=rows, data=str(source), out=out, format="detections", frame="pixels"))
        (row,) = read_rows(out)
        assert row["rewards"]["ap"] == 1.0 and [issue["kind"] for issue in row["issues"]] == ["unknown_label"]


def test_ground_truth_beside_the_rows_replaces_theirs(tmp_path):
    rows, data, out = tmp_path / "rows.jsonl", tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    write_rows(rows, [{**ROW, "answer": gold_answer(ROW, PIXELS)}])
    write_rows(data, [{**ROW, "relationships": ROW["relationships"][:1]}])
    run_score(ScoreOptions(rows=rows, data=str(data), out=out, frame="pixels", rewards=["triplet_precision"]))
    assert read_rows(out)[0]["rewards"] == {"triplet_precision": 0.5}


def test_predictions_that_cannot_be_joined_are_named_and_the_others_scored(tmp_path, capsys):
    rows, data, out = tmp_path / "predictions.jsonl", tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    write_rows(data, [ROW])
    good = predicted(ROW, gold_answer(ROW, PIXELS))
    resized = {**good, "frame": "resized", "input_wh": None}
    bad_rows = [{**good, "image_id": "8"}, {**good, "image_id": ["7"]}, {**good, "frame": "inches"}, resized]
    write_rows(rows, [good, *bad_rows, {key: good[key] for key in ("answer", "frame")}])
    with pytest.raises(DataError, match=r"5 rows left out, as unusable.*row 2: .*data.jsonl has no image_id '8'"):
        run_score(ScoreOptions(rows=rows, data=str(data), out=out))
    assert [row["rewards"]["hard_recall"] for row in read_rows(out)] == [1.0]
    shown = capsys.readouterr().err
    assert "row 3: image_id must be a text or a whole number, found ['7']" in shown
    assert "row 4: unknown box format (frame) 'inches'; allowed: pixels, norm1000" in shown
    assert "row 5: the box format 'resized' needs input_wh" in shown
    assert "row 6: image_id must be a text or a whole number, found none" in shown


def test_predictions_read_in_another_format_than_they_were_made_in_are_noticed(tmp_path, capsys):
    rows, data, out = tmp_path / "predictions.jsonl", tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    write_rows(data, [ROW])
    write_rows(rows, [predicted(ROW, gold_answer(ROW, PIXELS))])
    run_score(ScoreOptions(rows=rows, data=str(data), out=out, format="compact"))
    assert read_rows(out)[0]["status"] == "wrong_schema"
    shown = capsys.readouterr().err
    assert f"{rows}, row 1: the answer was 'ok' when it was predicted and is wrong_schema now" in shown


def test_answers_without_ground_truth_ask_for_it(tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [{"image_id": "7", "width": 200, "height": 100, "answer": "x"}])
    with pytest.raises(
        DataError, match="row 1: an answer without ground truth; name the data set that has it with --d"
    ):
        run_score(ScoreOptions(rows=rows))


def test_another_format_or_box_format_than_was_meant_is_reported(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    write_rows(rows, [{**ROW, "answer": gold_answer(ROW, PIXELS)}, {**ROW, "answer": None}])
    run_score(ScoreOptions(rows=rows, out=out, format="compact", frame="pixels"))
    assert "no answer could be read as 'compact'; as 'json', 1 of 1" in capsys.readouterr().err
    run_score(ScoreOptions(rows=rows, out=out, frame="norm1000"))
    assert "predicted boxes were read as 'norm1000'" in capsys.readouterr().err
    run_score(ScoreOptions(rows=rows, out=out, frame="pixels"))
    assert "warning" not in capsys.readouterr().err


def test_nothing_that_is_read_is_written_over(tmp_path):
    rows, data = tmp_path / "rows.jsonl", tmp_path / "data.jsonl"
    write_rows(rows, [predicted(ROW, gold_answer(ROW, PIXELS))])
    write_rows(data, [ROW])
    for out in (rows, data, tmp_path):
        with pytest.raises(DataError, match="^out: .*(is read by this command|is a folder)"):
            run_score(ScoreOptions(rows=rows, data=str(data), out=out))
    assert read_rows(data) == [ROW]
    assert len(read_rows(rows)) == 1


def test_a_missing_file_is_one_line(tmp_path, capsys):
    with pytest.raises(
        DataError, match="rows.jsonl: cannot be read .No such file or directory.; expected a JSONL file$"
    ):
        run_score(ScoreOptions(rows=tmp_path / "rows.jsonl"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, "", "\n\n", "{}\n", "[]\n"])
def test_nothing_to_score_writes_nothing_and_says_so(tmp_path, content):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    if content is not None:
        rows.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="rows.jsonl"):
        run_score(ScoreOptions(rows=rows, out=out))
    assert not out.exists()


def test_boxes_outside_the_image_are_counted(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    objects = [{"id": "man.1", "bbox": [0, 0, 400, 40]}]
    write_rows(rows, [{**ROW, "objects": objects, "relationships": [], "answer": None}] * 2)
    run_score(ScoreOptions(rows=rows, out=out))
    assert "2 warnings" in capsys.readouterr().err


def test_an_image_of_unknown_size_cannot_be_scored(tmp_path, capsys):
    data = tmp_path / "instances.json"
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 0}
    data.write_text(
        json.dumps({"images": [{"id": 1}], "annotations": [annotation], "categories": [{"id": 1, "name": "dog"}]})
    )
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [{"image_id": 1, "answer": '[{"bbox_2d": [0, 0, 5, 5], "label": "dog"}]'}])
    for frame in ("pixels", "norm1000"):
        with pytest.raises(DataError, match=r"rows\.jsonl, row 1: rewards need the image's width and height"):
            run_score(ScoreOptions(rows=rows, data=str(data), format="detections", frame=frame))


def test_word_vectors_are_not_written_over(tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("dog 1 0\n")
    write_rows(tmp_path / "rows.jsonl", [{**ROW, "answer": ""}])
    with pytest.raises(DataError, match="read by this command"):
        run_score(ScoreOptions(rows=tmp_path / "rows.jsonl", similarity=f"vectors:{vectors}", out=vectors))
