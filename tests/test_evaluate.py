"""The command `eval`: files in, table and metrics.json out, and what it says about files it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl.answers import OutputFormat, write_answer
from scenerl.cli import main
from scenerl.commands.eval import EvalOptions
from scenerl.data import load
from scenerl.data.triplets import read_training
from scenerl.errors import DataError
from scenerl.evaluate import run_eval
from scenerl.predictions import read_predictions

ROWS = [
    {
        "image_id": "a",
        "file_name": "a.jpg",
        "width": 100,
        "height": 100,
        "objects": [{"id": "dog.1", "bbox": [0, 0, 20, 20]}, {"id": "cat.2", "bbox": [50, 50, 90, 90]}],
        "relationships": [
            {"subject": "dog.1", "predicate": "near", "object": "cat.2"},
            {"subject": "cat.2", "predicate": "watching", "object": "dog.1"},
        ],
    },
    {
        "image_id": 7,
        "file_name": "7.jpg",
        "width": 200,
        "height": 100,
        "objects": [{"id": "hat.1", "bbox": [0, 0, 100, 50]}, {"id": "dog.2", "bbox": [100, 50, 200, 100]}],
        "relationships": [{"subject": "hat.1", "predicate": "on", "object": "dog.2"}],
    },
]
DETECTIONS = [
    {
        "image_id": "a",
        "width": 100,
        "height": 100,
        "detections": [{"label": "dog", "bbox_2d": [0, 0, 20, 20]}],
        "query": ["dog", "cat"],
    }
]


def write(path: Path, rows, end: str = "\n") -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + end)
    return path


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data.jsonl", ROWS)


def answers(data, **output_format):
    return [
        {
            "image_id": example.image_id,
            "answer": write_answer(example.graph, OutputFormat(**output_format), example.image_wh),
        }
        for example in load(data)
    ]


def run(tmp_path, pred, data, **options):
    out = tmp_path / "made" / "metrics.json"
    options.setdefault("resamples", 20)
    run_eval(EvalOptions(pred=pred, data=str(data), out=out, **options))
    return json.loads(out.read_text())


@pytest.mark.parametrize("template", ["plain", "think"])
@pytest.mark.parametrize("box_format", ["pixels", "norm1000", "norm1"])
@pytest.mark.parametrize("form", ["json", "compact"])
def test_ground_truth_as_answers_is_perfect(tmp_path, data, form, box_format, template):
    rows = answers(data, format=form, box_format=box_format, template=template)
    found = run(
        tmp_path,
        write(tmp_path / "p.jsonl", rows),
        data,
        format=form,
        frame=box_format,
        envelope=template,
        train=str(data),
    )
    for name, metric in found["metrics"].items():
        if name.startswith("zR@"):
            assert metric["value"] is None  # every triplet type is in the training data
        elif name.endswith(("_rate", "_hallucination")) or name.startswith("duplicate"):
            assert metric["value"] == 0
        elif not name.endswith("_per_image"):
            assert (metric["value"], metric["interval"]) == (1, [1, 1]), name
    assert found["failures"] == {}
    assert found["counts"]["images"] == found["counts"]["predictions"] == 2
    assert found["options"]["format"] == form and found["options"]["frame"] == box_format


def test_detection(tmp_path):
    data = write(tmp_path / "data.jsonl", DETECTIONS)
    rows = answers(data, format="detections")
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, format="detections", task="det")
    assert found["metrics"]["AP"]["value"] == found["metrics"]["F1_mean"]["value"] == 1
    assert "R@50" not in found["metrics"]
    # without --task, a warning says what is missing
    found = run(tmp_path, tmp_path / "p.jsonl", data, format="detections")
    assert any("--task det" in warning for warning in found["warnings"])
    assert found["metrics"]["R@50"]["value"] is None


def test_answers_to_another_task_are_named(tmp_path, data):
    rows = [{**row, "task": task} for row, task in zip(answers(data), ("predcls", ["sgdet"]), strict=True)]
    pred = write(tmp_path / "p.jsonl", rows)
    found = run(tmp_path, pred, data)
    assert found["warnings"] == [f"{pred}: 1 row of the task 'predcls' evaluated as sgdet; choose with --task"]
    assert not any("answer the task" in warning for warning in run(tmp_path, pred, data, task="predcls")["warnings"])


def parsed_rows():
    return [
        {
            "image_id": "a",
            "answer": "not read again",
            "status": "ok",
            "issues": [{"kind": "self_relation", "where": "relationships[2]", "detail": ""}],
            "graph": {
                "objects": [
                    {"id": "dog.1", "bbox": [0, 0, 20, 20], "score": 0.5},
                    {"id": "cat.2", "bbox": [50, 50, 90, 90]},
                ],
                "relationships": [{"subject": "dog.1", "predicate": "near", "object": "cat.2", "score": 0.25}],
            },
            "frame": "norm1000",
            "sample": 0,
        },
        {"image_id": "7", "answer": "{", "status": "truncated", "issues": [], "graph": None, "sample": 0},
    ]


def test_parsed_rows_are_taken_as_they_are(tmp_path, data):
    found = run(tmp_path, write(tmp_path / "p.jsonl", parsed_rows()), data)
    # image a: 1 of 2 relations; image 7 failed: 0 of 1
    assert found["metrics"]["R@50"]["value"] == (1 / 2 + 0) / 2
    assert found["metrics"]["triplet_precision"]["value"] == 1 / 2  # the relation that was dropped is wrong
    assert found["metrics"]["failure_rate"]["value"] == 1 / 2
    assert found["failures"] == {"truncated": 1}
    assert found["issues"] == {"self_relation": 1}
    assert found["per_predicate"]["near"] == {
        "recall": 1, "R@20": 1, "R@50": 1, "R@100": 1, "ng-R@20": 1, "ng-R@50": 1, "ng-R@100": 1,
        "num_targets": 1, "num_images": 1,
    }  # fmt: skip


def test_objects_beside_an_answer_are_not_the_prediction(tmp_path, data):
    rows = [{**row, "answer": None} for row in ROWS]
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["failures"] == {"no_answer": 2}
    assert found["metrics"]["Recall"]["value"] == found["metrics"]["AP"]["value"] == 0


def test_a_row_names_its_own_box_format_and_truncation(tmp_path, data):
    rows = answers(data, box_format="pixels")
    rows[0]["frame"] = "pixels"
    rows[1] = {"image_id": "7", "answer": '{"objects": [', "finish_reason": "length"}
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, frame="norm1000")
    assert found["metrics"]["object_recall"]["value"] == 2 / 4
    assert found["failures"] == {"truncated": 1}


def test_missing_and_unknown_images_are_counted_and_named(tmp_path, data, capsys):
    rows = answers(data)
    rows[1]["image_id"] = "somewhere else"
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["counts"]["missing_answers"] == found["counts"]["unknown_images"] == 1
    assert found["counts"]["images"] == 2
    assert found["failures"] == {"no_answer": 1}
    assert found["metrics"]["R@50"]["value"] == 1 / 2
    warnings = capsys.readouterr().err
    assert f"{tmp_path / 'p.jsonl'}: 1 image without a prediction, counted as empty: '7'" in warnings
    assert "'somewhere else'" in warnings


def test_answers_without_any_relation(tmp_path, data, capsys):
    rows = [{**row, "answer": json.dumps([{"bbox_2d": [0, 0, 9, 9], "label": "dog"}])} for row in answers(data)]
    path = write(tmp_path / "p.jsonl", rows)
    for task, said in (("sgdet", True), ("det", False)):
        assert main(["eval", str(path), "--data", str(data), "--format", "detections", "--task", task]) == 0
        assert (f"{path}: no answer has a relation; --task det" in capsys.readouterr().err) == said


def test_further_samples_are_left_out(tmp_path, data):
    rows = [{**row, "sample": 0} for row in answers(data)]
    rows += [{"image_id": row["image_id"], "answer": "", "sample": 1} for row in rows]
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["metrics"]["Recall"]["value"] == 1
    assert found["counts"]["ignored_samples"] == 2


def test_rows_that_are_no_json_are_counted_and_listed(tmp_path, data):
    rows = answers(data)
    found = run(tmp_path, write(tmp_path / "p.jsonl", [rows[0], "{not json", "[1, 2]", rows[1]]), data)
    assert found["counts"]["broken_rows"] == 2 and found["counts"]["missing_answers"] == 0
    assert any(
        "row 2: not JSON (" in warning and "row 3: a row must be a JSON object" in warning
        for warning in found["warnings"]
    )
    assert found["metrics"]["Recall"]["value"] == 1


def test_of_two_rows_with_one_id_the_first_counts(tmp_path, data):
    rows = answers(data)
    found = run(tmp_path, write(tmp_path / "p.jsonl", [*rows, {"image_id": "a", "answer": ""}]), data)
    assert found["counts"]["doubled_images"] == 1
    assert any("'a'" in warning and "row 3" in warning for warning in found["warnings"])
    assert found["metrics"]["Recall"]["value"] == 1


def test_rows_without_an_id_are_counted(tmp_path, data):
    rows = [*answers(data), {"answer": ""}, {"image_id": True, "answer": ""}]
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["counts"]["unnamed_rows"] == 2


def test_labels_in_another_spelling_are_counted_and_named(tmp_path, data):
    rows = parsed_rows()
    rows[0]["graph"]["objects"][0]["id"] = "Dog.1"
    rows[0]["graph"]["relationships"] = []
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["counts"]["misspelled_labels"] == 1
    assert any("'Dog' (1 times) for 'dog'" in warning for warning in found["warnings"])
    assert found["metrics"]["object_recall"]["value"] == 1 / 4


@pytest.mark.parametrize(
    ("written", "read", "suspected"),
    [("pixels", "norm1000", "pixels"), ("norm1000", "pixels", "norm1000"), ("norm1", "norm1000", "norm1"),
     ("norm1000", "norm1000", None), ("pixels", "pixels", None)],
)  # fmt: skip
def test_boxes_in_the_wrong_box_format_are_reported_not_guessed(tmp_path, data, written, read, suspected):
    found = run(tmp_path, write(tmp_path / "p.jsonl", answers(data, box_format=written)), data, frame=read)
    suspicions = [warning for warning in found["warnings"] if "would be" in warning]
    assert bool(suspicions) == bool(suspected)
    assert found["options"]["frame"] == read
    if suspected:
        assert f"read as {suspected!r} it would be 1.00" in suspicions[0]
        assert found["metrics"]["object_recall"]["value"] < 0.5  # nothing was converted


def test_ground_truth_without_relations(tmp_path):
    row = {**ROWS[0], "relationships": []}
    data = write(tmp_path / "data.jsonl", [row])
    found = run(tmp_path, write(tmp_path / "p.jsonl", answers(data)), data)
    assert found["metrics"]["R@50"] == {"value": None, "interval": None, "support": 0, "note": "no target relations"}


def test_a_last_row_that_breaks_off_is_left_out_with_a_warning(tmp_path, data):
    rows = answers(data)
    whole = write(tmp_path / "p.jsonl", rows).read_text().rstrip("\n")
    (tmp_path / "p.jsonl").write_text(whole[:-9])
    found = run(tmp_path, tmp_path / "p.jsonl", data)
    assert found["counts"]["missing_answers"] == 1
    assert any("row 2: not JSON (" in warning for warning in found["warnings"])
    # complete, only without a line end: nothing is lost
    (tmp_path / "p.jsonl").write_text(whole)
    assert run(tmp_path, tmp_path / "p.jsonl", data)["counts"]["missing_answers"] == 0


def test_scores_that_are_no_numbers_are_counted(tmp_path, data):
    rows = parsed_rows()
    rows[0]["graph"]["objects"][0]["score"] = float("nan")
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["counts"]["bad_scores"] == 1
    assert any("objects[0]" in warning for warning in found["warnings"])
    assert found["metrics"]["Recall"]["value"] == 1 / 4


GOOD = {"image_id": "a", "answer": "None"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": "a"}], r"row 1: neither 'answer' nor a parsed 'graph'"),
        ([{"image_id": "nowhere", "answer": ""}], r"none of its 1 image ids is in the data.*'nowhere'.*'a'"),
        ([], r"p\.jsonl holds no usable prediction; it is empty"),
        ([{"answer": ""}], r"p\.jsonl holds no usable prediction; .*1 rows without an image_id"),
        (["{not json"], r"p\.jsonl holds no usable prediction; .*row 1: not JSON"),
        ([{"image_id": "a", "status": "fine"}], r"unknown status 'fine'; allowed: ok, no_answer"),
        ([{"image_id": "a", "status": "ok", "graph": None}], r"status 'ok' needs a 'graph'"),
        ([{"image_id": "a", "graph": {"objects": {}}}], r"objects must be a list"),
        ([{"image_id": "a", "graph": {"objects": [{"bbox": [0, 0, 1, 1]}]}}], r"objects\[0\] .*'id'"),
        ([{"image_id": "a", "graph": {"objects": [{"id": "x.1", "bbox": [0, 0, 1]}]}}], r"4 finite numbers"),
        ([{"image_id": "a", "graph": {"objects": [{"id": "x.1", "bbox": [0, 0, 1, "1"]}]}}], r"4 finite numbers"),
        ([{"image_id": "a", "graph": {"objects": [{"id": "x.1", "bbox": [0, 0, 1, float("nan")]}]}}], r"4 finite"),
        ([{"image_id": "a", "graph": {"objects": [{"id": "x.1", "bbox": [0, 0, 1, 10**400]}]}}], r"4 finite numbers"),
        (
            [{"image_id": "a", "graph": {"objects": [{"id": "x.1", "bbox": [0, 0, 1, 1]}] * 2}}],
            r"objects\[1\] has the id 'x.1' of objects\[0\]",
        ),
        (
            [{"image_id": "a", "graph": {"objects": [], "relationships": [
                {"subject": "x.1", "predicate": "on", "object": "y.2"}]}}],
            r"names 'x.1', which is no object's id",
        ),
        ([{"image_id": "a", "answer": "", "input_wh": [1]}], r"input_wh must be"),
        ([{"image_id": "a", "answer": "", "frame": "miles"}], r"unknown box format \(frame\) 'miles'"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(tmp_path, data, rows, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert not (tmp_path / "made").exists()


def test_files_that_are_not_there(tmp_path, data):
    with pytest.raises(ValueError, match=r"gone\.jsonl: cannot be read"):
        run(tmp_path, tmp_path / "gone.jsonl", data)
    with pytest.raises(ValueError, match=r"gone\.jsonl"):
        run(tmp_path, write(tmp_path / "p.jsonl", [GOOD]), tmp_path / "gone.jsonl")


def test_deep_nesting_in_a_prediction_row_is_an_error_not_a_crash(tmp_path):
    path = write(tmp_path / "p.jsonl", ['{"image_id": ' + "[" * 100_000, json.dumps(GOOD)])
    assert read_predictions(path).notes.counts()["broken_rows"] == 1


def test_training_triplets(tmp_path, data):
    expected = {("dog", "near", "cat"), ("cat", "watching", "dog"), ("hat", "on", "dog")}
    counts = {"near": 1, "watching": 1, "on": 1}
    assert read_training(str(data)) == (expected, counts)
    bare, keyed = tmp_path / "bare.json", tmp_path / "keyed.json"
    bare.write_text(json.dumps([list(triplet) for triplet in expected]))
    keyed.write_text(json.dumps({"triplets": [list(triplet) for triplet in expected], "predicate_counts": counts}))
    assert read_training(str(bare)) == (expected, None)
    assert read_training(str(keyed)) == (expected, counts)
    with pytest.raises(ValueError, match=r"bare\.json is a file of triplets and has no split 'train'"):
        read_training(str(bare), "train")
    for text in ("{", "{}", '[["a", "b"]]', '[["a", "b", 3]]'):
        bare.write_text(text)
        with pytest.raises(ValueError, match=r"bare\.json.*\[subject, predicate, object\]"):
            read_training(str(bare))


def test_the_split_of_the_training_data(tmp_path, data):
    """Of two splits beside each other, one holds every triplet type of the target and the other none."""
    folder = tmp_path / "splits"
    folder.mkdir()
    (folder / "seen.jsonl").write_text(data.read_text())
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(folder / "other.jsonl", [{**row, "relationships": []} for row in rows])
    pred = write(tmp_path / "p.jsonl", answers(data))
    for split, value in (("seen", None), ("other", 1.0)):
        found = run(tmp_path, pred, data, train=str(folder), train_split=split)
        assert found["metrics"]["zR@50"]["value"] == value and found["options"]["train_split"] == split
    with pytest.raises(ValueError, match="needs a split; allowed: other, seen"):
        run(tmp_path, pred, data, train=str(folder))


def test_conventions_reach_the_metrics(tmp_path, data, capsys):
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(
        json.dumps({"objects": ["dog", "cat", "hat"], "predicates": ["near", "watching", "on", "eating"]})
    )
    pred = write(tmp_path / "p.jsonl", answers(data))
    found = run(
        tmp_path, pred, data, vocabulary=vocabulary, absent_as_zero=True, hits="one_to_one", plus_one=True, ks=[5]
    )
    assert found["metrics"]["mR@5"]["value"] == 3 / 4
    assert found["counts"]["absent_predicates"] == 1
    assert "Predicates without a target, counted as 0 in mean recall: 1" in capsys.readouterr().out
    assert found["options"]["hits"] == "one_to_one" and found["options"]["plus_one"] is True
    with pytest.raises(ValueError, match="--vocabulary"):
        run(tmp_path, pred, data, absent_as_zero=True)


def test_the_table_names_the_headline_and_what_is_left_out(tmp_path, data, capsys):
    found = run(tmp_path, write(tmp_path / "p.jsonl", parsed_rows()), data)
    shown = capsys.readouterr().out
    assert " R@50 " in shown and " R@20 " not in shown and "more metrics: --metrics all" in shown
    run(tmp_path, tmp_path / "p.jsonl", data, metrics=["all"])
    shown = capsys.readouterr().out
    for name in found["metrics"]:
        assert f" {name} " in shown
    with pytest.raises(ValueError, match="metrics: 'R@5' is not there"):
        run(tmp_path, tmp_path / "p.jsonl", data, metrics=["R@5"])
    assert "Failures: truncated 1" in shown
    assert "without a target" not in shown


def test_without_out_only_the_table_is_made(tmp_path, data, capsys):
    run_eval(EvalOptions(pred=write(tmp_path / "p.jsonl", answers(data)), data=str(data), resamples=0))
    assert "R@50" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "p.jsonl"]


def test_a_protocol_sets_conventions_together_and_options_win_over_it(tmp_path, data):
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(
        json.dumps({"objects": ["dog", "cat", "hat"], "predicates": ["near", "watching", "on", "at"]})
    )
    pred = write(tmp_path / "p.jsonl", answers(data)[:1])
    options = run(tmp_path, pred, data, vocabulary=vocabulary, protocol="motifs")["options"]
    assert options["protocol"] == "motifs" and "1711.06640" in options["protocol_source"]
    assert options["plus_one"] and options["absent_predicates_as_zero"] and options["vocabulary"] == str(vocabulary)
    assert (options["graph_constraint"], options["failed"]) == ("always", "skipped_if_empty")
    found = run(tmp_path, pred, data, vocabulary=vocabulary, protocol="motifs", plus_one=False)
    assert found["options"]["plus_one"] is False and found["options"]["graph_constraint"] == "always"
    # image 7 has no prediction and is left out; two of four predicates occur in image a
    assert found["metrics"]["R@50"]["value"] == 1 and found["metrics"]["mR@50"]["value"] == 2 / 4
    assert found["counts"]["skipped_images"] == 1
    with pytest.raises(ValueError, match="protocol coco is for task det, not sgdet"):
        run(tmp_path, pred, data, protocol="coco", task="sgdet")
    with pytest.raises(ValueError, match="--vocabulary"):
        run(tmp_path, pred, data, protocol="motifs")


def test_comparison_of_two_predictions(tmp_path, data, capsys):
    rows = answers(data)
    good, bad = write(tmp_path / "good.jsonl", rows), write(tmp_path / "bad.jsonl", rows[:1])
    out = tmp_path / "compare.json"
    run_eval(EvalOptions(compare=[bad, good], data=str(data), out=out, resamples=200))
    found = json.loads(out.read_text())
    recall = found["compare"]["metrics"]["R@50"]
    assert (recall["a"], recall["b"], recall["difference"]) == (1 / 2, 1, 1 / 2)
    assert 0 < recall["p_value"] <= 1 and recall["interval"] == [0, 1]
    assert found["compare"]["images"] == [{"image_id": "7", "a": 0, "b": 1}]
    shown = capsys.readouterr().out
    assert "B − A" in shown and "7: 0.00, 1.00" in shown
    run_eval(EvalOptions(compare=[good, good], data=str(data), out=out, resamples=50))
    same = json.loads(out.read_text())["compare"]
    assert all(entry["difference"] == 0 and entry["p_value"] == 1 for entry in same["metrics"].values())
    assert same["images"] == []


def test_predictions_or_two_files_to_compare(tmp_path, data):
    for options in ({}, {"pred": tmp_path, "compare": [tmp_path, tmp_path]}):
        with pytest.raises(ValueError, match="--compare with two"):
            run_eval(EvalOptions(data=str(data), **options))
    with pytest.raises(ValueError, match="compare: two files"):
        EvalOptions(data=str(data), compare=[tmp_path])


def test_mapped_labels_stand_beside_the_strict_ones(tmp_path, data, capsys):
    rows = parsed_rows()
    rows[0]["graph"]["objects"][0]["id"] = "puppy.1"
    rows[0]["graph"]["relationships"] = [{"subject": "cat.2", "predicate": "watched by", "object": "puppy.1"}]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({
        "objects": {"puppy": "dog"}, "predicates": {"watched by": {"to": "watching", "swap": True}},
    }))  # fmt: skip
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, map_table=table)
    assert found["metrics"]["object_recall"]["value"] == 1 / 4
    assert found["mapped"]["metrics"]["object_recall"]["value"] == 2 / 4
    assert found["mapped"]["mappings"] == [
        {"kind": "objects", "label": "puppy", "to": "dog", "by": "table", "count": 1, "swap": False},
        {"kind": "predicates", "label": "watched by", "to": "watching", "by": "table", "count": 1, "swap": True},
    ]
    # "cat watched by dog" became "dog watching cat", which is no target; the other way round it is
    assert found["mapped"]["metrics"]["Recall"]["value"] == 0
    rows[0]["graph"]["relationships"] = [{"subject": "puppy.1", "predicate": "watched by", "object": "cat.2"}]
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, map_table=table)
    assert found["mapped"]["metrics"]["Recall"]["value"] == (1 / 2 + 0) / 2
    assert "puppy → dog: 1 (table)" in capsys.readouterr().out


def test_labels_outside_a_query_can_be_mapped_into_it(tmp_path):
    data = write(tmp_path / "data.jsonl", DETECTIONS)
    answer = json.dumps([{"bbox_2d": [0, 0, 20, 20], "label": "puppy"}])
    pred = write(tmp_path / "p.jsonl", [{"image_id": "a", "answer": answer}])
    table = write(tmp_path / "table.json", [{"objects": {"puppy": "dog"}, "predicates": {}}])
    options = {"format": "detections", "frame": "pixels", "task": "det"}
    assert run(tmp_path, pred, data, **options)["issues"] == {"unknown_label": 1}
    found = run(tmp_path, pred, data, map_table=table, **options)
    assert found["issues"] == {} and found["mapped"]["metrics"]["AP"]["value"] == 1


def test_a_comparison_maps_the_labels_of_both(tmp_path, data, capsys):
    rows = parsed_rows()
    good = write(tmp_path / "good.jsonl", rows)
    rows[0]["graph"]["objects"][0]["id"] = "puppy.1"
    rows[0]["graph"]["relationships"][0]["subject"] = "puppy.1"
    puppy = write(tmp_path / "puppy.jsonl", rows)
    table = write(tmp_path / "table.json", [{"objects": {"puppy": "dog"}, "predicates": {}}])
    out = tmp_path / "compare.json"
    for options, difference in (({}, 1 / 4), ({"map_table": table}, 0)):
        run_eval(EvalOptions(compare=[puppy, good], data=str(data), out=out, resamples=10, **options))
        found = json.loads(out.read_text())
        assert found["compare"]["metrics"]["object_recall"]["difference"] == pytest.approx(difference)
    mapping = {"kind": "objects", "label": "puppy", "to": "dog", "by": "table", "count": 1, "swap": False}
    assert found["mappings"] == [[mapping], []]
    assert "1 of A, 0 of B" in capsys.readouterr().out


def test_a_mapping_that_leads_nowhere_is_reported(tmp_path, data):
    rows = parsed_rows()
    rows[0]["graph"]["objects"][0]["id"] = "puppy.1"
    rows[0]["graph"]["relationships"] = []
    table = write(tmp_path / "table.json", [{"objects": {"puppy": "hound"}, "predicates": {}}])
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, map_table=table)
    assert "1 labels were mapped to what is no target's label either: 'puppy' to 'hound'" in found["warnings"]


def test_what_has_no_support_with_mapped_labels_either_is_a_dash(tmp_path, data, capsys):
    rows = parsed_rows()
    for row in rows:
        row["issues"] = []
        if row["graph"]:
            row["graph"]["relationships"] = []
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"objects": {"puppy": "dog"}, "predicates": {}}))
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, map_table=table)
    assert found["mapped"]["metrics"]["triplet_precision"]["value"] is None
    line = next(line for line in capsys.readouterr().out.splitlines() if "triplet_precision" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "triplet_precision", "–", "no predicted relations", "", "–"
    ]  # fmt: skip


def test_scores_give_a_calibration(tmp_path, data):
    rows = parsed_rows()
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    # one scored object, confidence 0.5 and right; one scored relation, confidence 0.25 and right
    assert found["calibration"]["objects"]["ece"] == 0.5
    assert found["calibration"]["relations"]["ece"] == 0.75
    for row in rows[0]["graph"]["objects"] + rows[0]["graph"]["relationships"]:
        row.pop("score", None)
    assert "calibration" not in run(tmp_path, write(tmp_path / "p.jsonl", rows), data)


@pytest.mark.parametrize(
    ("read", "written"),
    [
        ({"pred": "a.jsonl"}, {"out": "a.jsonl"}),
        ({"pred": "a.jsonl"}, {"out": "data.jsonl"}),
        ({"pred": "a.jsonl", "data": "jsonl:data.jsonl"}, {"out": "data.jsonl"}),
        ({"compare": ["a.jsonl", "b.jsonl"]}, {"out": "b.jsonl"}),
        ({"pred": "a.jsonl", "train": "b.jsonl"}, {"out": "b.jsonl"}),
        ({"pred": "a.jsonl"}, {"out": "."}),
        ({"pred": "a.jsonl"}, {"out": "b.jsonl/new/metrics.json"}),
        ({"pred": "a.jsonl"}, {"export": ["coco=a.jsonl"]}),
        ({"pred": "a.jsonl", "data": "x_instances.json"}, {"export": ["coco=x.json"]}),
        ({"pred": "a.jsonl", "data": "x_psg.json"}, {"export": ["sgbench=x.json"]}),
    ],
)
def test_nothing_that_is_read_is_written_over(tmp_path, monkeypatch, data, read, written):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "x_instances.json", "x_psg.json"):
        write(tmp_path / name, answers(data))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    paths = {key: [Path(word) for word in value] for key, value in read.items() if key == "compare"}
    paths |= {key: Path(value) for key, value in (read | written).items() if key in ("pred", "out")}
    others = {key: value for key, value in (read | written).items() if key in ("data", "train", "export")}
    with pytest.raises(DataError, match="^(out|export).*(is read by this command|is a folder|is a file, not a folder)"):
        run_eval(EvalOptions(**{"data": "data.jsonl", **paths, **others}))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_exports_are_refused_before_anything_is_evaluated(tmp_path, data, capsys):
    pred = write(tmp_path / "pred.jsonl", answers(data))
    for export, message in ((["coco"], "not FORMAT=FILE"), (["voc=x"], "allowed: sgbench, coco")):
        with pytest.raises(DataError, match=f"^export: .*{message}"):
            run_eval(EvalOptions(pred=pred, data=str(data), export=export))
    with pytest.raises(ValueError, match="^export .* --compare"):
        run_eval(EvalOptions(compare=[pred, pred], data=str(data), export=[f"coco={tmp_path / 'x.json'}"]))
    assert capsys.readouterr().out == ""


def test_annotations_of_subsets_are_a_folder_of_files(tmp_path, data):
    for place in (tmp_path, data):  # a folder without annotations, and a file
        with pytest.raises(DataError, match=r"holds no \*.json; --data of ovdeval is its folder of annotations"):
            run_eval(EvalOptions(pred=tmp_path, data=str(place), input="ovdeval"))


def test_labels_are_not_mapped_in_folders_of_subsets(tmp_path, data):
    with pytest.raises(ValueError, match="not in a folder of subsets"):
        run_eval(EvalOptions(pred=tmp_path, data=str(tmp_path), input="ovdeval", map_similarity="exact"))


def test_answers_read_in_the_wrong_format_are_reported_not_guessed(tmp_path, data, capsys):
    pred = write(tmp_path / "pred.jsonl", answers(data, format="compact"))
    run_eval(EvalOptions(pred=pred, data=str(data), out=tmp_path / "metrics.json"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["metrics"]["failure_rate"]["value"] == 1.0
    expected = "no answer could be read as 'json'; as 'compact', 2 of 2 that were tried can be read"
    assert expected in " ".join(metrics["warnings"])
    assert expected in capsys.readouterr().err


def test_a_single_answer_that_can_be_read_settles_the_format(tmp_path, data, capsys):
    rows = [answers(data)[0], answers(data, format="compact")[1]]
    run_eval(EvalOptions(pred=write(tmp_path / "pred.jsonl", rows), data=str(data)))
    assert "could be read" not in capsys.readouterr().err


def test_a_folder_without_answers_says_what_is_expected(tmp_path, data):
    with pytest.raises(DataError, match=r"holds no \*.json; a folder of predictions is R1-SGG's"):
        run_eval(EvalOptions(pred=tmp_path, data=str(data)))


def test_coco_files_list_images_in_any_order(tmp_path):
    """pycocotools sorts images by id before it ranks equal scores; the order of the file used to decide (AP 1.0)."""
    truth = {
        "images": [{"id": n, "width": 100, "height": 100, "file_name": f"{n}.jpg"} for n in (2, 1)],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
        "categories": [{"id": 3, "name": "dog"}],
    }
    found = [{"image_id": n, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 1.0} for n in (2, 1)]
    data, pred, out = tmp_path / "instances.json", tmp_path / "results.json", tmp_path / "metrics.json"
    data.write_text(json.dumps(truth))
    pred.write_text(json.dumps(found))
    run_eval(EvalOptions(pred=pred, data=str(data), out=out, input="coco", resamples=0))
    assert json.loads(out.read_text())["metrics"]["AP"]["value"] == pytest.approx(0.5)


def test_boxes_of_an_image_of_unknown_size(tmp_path):
    """In pixels they need no size; relative ones would all lie at 0."""
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 0}
    instances = {"images": [{"id": 1}], "annotations": [annotation], "categories": [{"id": 1, "name": "dog"}]}
    data = write(tmp_path / "instances.json", [instances])
    pred = write(tmp_path / "p.jsonl", [{"image_id": 1, "answer": '[{"bbox_2d": [0, 0, 5, 5], "label": "dog"}]'}])
    how = {"task": "det", "format": "detections"}
    assert run(tmp_path, pred, data, frame="pixels", **how)["metrics"]["AP"]["value"] == 1
    with pytest.raises(DataError, match=r"p\.jsonl, row 1: the frame 'norm1000' needs the image's width and height"):
        run(tmp_path, pred, data, frame="norm1000", **how)


@pytest.mark.parametrize(
    ("out", "export"),
    [("x.json", ["coco=x.json"]), ("x_instances.json", ["coco=x.json"]), ("m.json", ["coco=x.json", "sgbench=x.json"])],
)
def test_no_file_is_written_twice(tmp_path, data, monkeypatch, out, export):
    monkeypatch.chdir(tmp_path)
    pred = write(tmp_path / "p.jsonl", answers(data))
    with pytest.raises(DataError, match="is written by this command already"):
        run_eval(EvalOptions(pred=pred, data=str(data), out=Path(out), export=export, resamples=0))
    assert not any(tmp_path.glob("x*.json"))


def test_word_vectors_are_not_written_over(tmp_path, data):
    vectors = write(tmp_path / "vectors.txt", ["dog 1 0"])
    pred = write(tmp_path / "p.jsonl", answers(data))
    with pytest.raises(DataError, match="read by this command"):
        run_eval(EvalOptions(pred=pred, data=str(data), out=vectors, map_similarity=f"vectors:{vectors}"))


def test_names_of_files_are_shown_as_they_are(tmp_path, data, capsys):
    pred = write(tmp_path / "p[bold].jsonl", answers(data))
    run_eval(EvalOptions(compare=[pred, pred], data=str(data), resamples=0))
    assert "p[bold].jsonl" in "".join(capsys.readouterr().out.split())
