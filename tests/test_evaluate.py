"""The command `eval`: files in, table and metrics.json out, and what it says about files it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl.answers import AnswerStyle, write_answer
from scenerl.config.options import EvalOptions
from scenerl.data import load
from scenerl.evaluate import read_predictions, read_training_triplets, run_eval

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


def answers(data, **style):
    return [
        {"image_id": example.image_id, "answer": write_answer(example.graph, AnswerStyle(**style), example.image_wh)}
        for example in load(data)
    ]


def run(tmp_path, pred, data, **options):
    out = tmp_path / "made" / "metrics.json"
    options.setdefault("resamples", 20)
    run_eval(EvalOptions(pred=pred, data=str(data), out=out, **options))
    return json.loads(out.read_text())


@pytest.mark.parametrize("envelope", ["plain", "think"])
@pytest.mark.parametrize("frame", ["pixels", "norm1000", "norm1"])
@pytest.mark.parametrize("form", ["json", "compact"])
def test_ground_truth_as_answers_is_perfect(tmp_path, data, form, frame, envelope):
    rows = answers(data, format=form, frame=frame, envelope=envelope)
    found = run(
        tmp_path, write(tmp_path / "p.jsonl", rows), data, format=form, frame=frame, envelope=envelope, train=str(data)
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
    assert found["options"]["format"] == form and found["options"]["frame"] == frame


def test_detection(tmp_path):
    data = write(tmp_path / "data.jsonl", DETECTIONS)
    rows = answers(data, format="detections")
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data, format="detections", task="det")
    assert found["metrics"]["AP"]["value"] == found["metrics"]["F1_mean"]["value"] == 1
    assert "R@50" not in found["metrics"]
    # asked for scene graph metrics, the command says what is amiss
    found = run(tmp_path, tmp_path / "p.jsonl", data, format="detections")
    assert any("--task det" in warning for warning in found["warnings"])
    assert found["metrics"]["R@50"]["value"] is None


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
    assert found["metrics"]["triplet_precision"]["value"] == 1
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


def test_a_row_names_its_own_frame_and_truncation(tmp_path, data):
    rows = answers(data, frame="pixels")
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
    assert "1 images have no prediction and count as empty: '7'" in warnings
    assert "'somewhere else'" in warnings


def test_further_samples_are_left_out(tmp_path, data):
    rows = [{**row, "sample": 0} for row in answers(data)]
    rows += [{"image_id": row["image_id"], "answer": "", "sample": 1} for row in rows]
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["metrics"]["Recall"]["value"] == 1
    assert found["counts"]["ignored_samples"] == 2


def test_a_last_row_that_breaks_off_is_left_out_with_a_warning(tmp_path, data):
    rows = answers(data)
    whole = write(tmp_path / "p.jsonl", rows).read_text().rstrip("\n")
    (tmp_path / "p.jsonl").write_text(whole[:-9])
    found = run(tmp_path, tmp_path / "p.jsonl", data)
    assert found["counts"]["missing_answers"] == 1
    assert any("row 2" in warning and "breaks off" in warning for warning in found["warnings"])
    # complete, only without a line end: nothing is lost
    (tmp_path / "p.jsonl").write_text(whole)
    assert run(tmp_path, tmp_path / "p.jsonl", data)["counts"]["missing_answers"] == 0


def test_scores_that_are_no_numbers_are_counted(tmp_path, data):
    rows = parsed_rows()
    rows[0]["graph"]["objects"][0]["score"] = float("nan")
    found = run(tmp_path, write(tmp_path / "p.jsonl", rows), data)
    assert found["counts"]["bad_scores"] == 1
    assert found["metrics"]["Recall"]["value"] == 1 / 4


GOOD = {"image_id": "a", "answer": "None"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, "{not json", GOOD], r"p\.jsonl, row 2: not JSON"),
        ([GOOD, "[1, 2]"], r"p\.jsonl, row 2: a row must be a JSON object"),
        ([GOOD, GOOD], r"p\.jsonl, row 2: the image_id 'a' is that of row 1 already"),
        ([{"answer": ""}], r"row 1: image_id must be a text or a whole number, found none"),
        ([{"image_id": True, "answer": ""}], r"row 1: image_id must be"),
        ([{"image_id": "a"}], r"row 1: neither 'answer' nor a parsed 'graph'"),
        ([{"image_id": "nowhere", "answer": ""}], r"none of its 1 image ids is in the data.*'nowhere'.*'a'"),
        ([], r"p\.jsonl holds no prediction"),
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
        ([{"image_id": "a", "answer": "", "input_wh": [1]}], r"input_wh must be 2 finite numbers"),
        ([{"image_id": "a", "answer": "", "frame": "miles"}], r"unknown frame 'miles'"),
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
    with pytest.raises(ValueError, match="row 1"):
        read_predictions(path)


def test_training_triplets(tmp_path, data):
    expected = {("dog", "near", "cat"), ("cat", "watching", "dog"), ("hat", "on", "dog")}
    assert read_training_triplets(str(data)) == expected
    bare, keyed = tmp_path / "bare.json", tmp_path / "keyed.json"
    bare.write_text(json.dumps([list(triplet) for triplet in expected]))
    keyed.write_text(json.dumps({"triplets": [list(triplet) for triplet in expected], "predicate_counts": {}}))
    assert read_training_triplets(str(bare)) == read_training_triplets(str(keyed)) == expected
    for text in ("{", "{}", '[["a", "b"]]', '[["a", "b", 3]]'):
        bare.write_text(text)
        with pytest.raises(ValueError, match=r"bare\.json.*\[subject, predicate, object\]"):
            read_training_triplets(str(bare))


def test_conventions_reach_the_metrics(tmp_path, data):
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(
        json.dumps({"objects": ["dog", "cat", "hat"], "predicates": ["near", "watching", "on", "eating"]})
    )
    pred = write(tmp_path / "p.jsonl", answers(data))
    found = run(
        tmp_path, pred, data, vocabulary=vocabulary, absent_as_zero=True, one_to_one=True, plus_one=True, ks=[5]
    )
    assert found["metrics"]["mR@5"]["value"] == 3 / 4
    assert found["counts"]["absent_predicates"] == 1
    assert found["options"]["hits"] == "one_to_one" and found["options"]["plus_one"] is True
    with pytest.raises(ValueError, match="--vocabulary"):
        run(tmp_path, pred, data, absent_as_zero=True)


def test_the_table_names_every_metric_and_what_is_left_out(tmp_path, data, capsys):
    found = run(tmp_path, write(tmp_path / "p.jsonl", parsed_rows()), data)
    shown = capsys.readouterr().out
    for name in found["metrics"]:
        assert f" {name} " in shown
    assert "Failures: truncated 1" in shown
    assert "0 predicates have no target and are left out of mean recall." in shown


def test_without_out_only_the_table_is_made(tmp_path, data, capsys):
    run_eval(EvalOptions(pred=write(tmp_path / "p.jsonl", answers(data)), data=str(data), resamples=0))
    assert "R@50" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "p.jsonl"]
