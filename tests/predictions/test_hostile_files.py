"""Files of predictions and ground truth with one thing wrong in them: read, or one error that names the file."""

from __future__ import annotations

import copy
import io
import json
import math
import random

import numpy as np
import pytest
from rich.console import Console

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.commands.eval import EvalOptions
from scenerl.data import toon
from scenerl.data.ground_truth import GroundTruth, Names, load_ground_truth
from scenerl.data.rows import example_to_row
from scenerl.errors import UserError
from scenerl.evaluate import run_eval
from scenerl.predictions import read_predictions
from scenerl.predictions.merge_file import merge_file
from scenerl.predictions.pairing import pair_up
from scenerl.types import Example, SceneGraph

NAMES = Names({0: "dog", 1: "cat"}, ("near", "on"))
WRONG = [None, True, -1, 0.5, 10**400, math.nan, "", "x", "9" * 5000, [], [1], [[]], ["x", "y"], {}, {"a": 1}]
ANSWER = '{"objects": [{"id": "dog.1", "bbox": [0, 0, 20, 20]}], "relationships": []}'
BOXES = [[0, 0, 20, 20], [50, 50, 90, 90]]
LINES = (
    "<answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n1,dog,0,0,20,20\n2,cat,5,5,9,9\nrel[1]{subj,pred,obj}:\n1,on,2\n</answer>"
)

PSG = {
    "data": [{"image_id": "1", "width": 100, "height": 100,
              "annotations": [{"bbox": box, "category_id": n} for n, box in enumerate(BOXES)],
              "relations": [[0, 1, 0]]}],
    "thing_classes": ["dog", "cat"], "stuff_classes": [], "predicate_classes": ["near"], "test_image_ids": ["1"],
}  # fmt: skip
INSTANCES = {
    "images": [{"id": 1, "width": 100, "height": 100}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "iscrowd": 0}],
    "categories": [{"id": 1, "name": "dog"}],
}
GATHERED = {"boxes": BOXES, "names": ["dog.1", "cat.2"], "scores": [1.0, 0.5]}
ARRAYS = {"bbox": BOXES, "bbox_labels": [1, 2], "bbox_scores": [0.9, 0.5], "rel_pairs": [[0, 1], [1, 0]],
          "rel_labels": [1, 2], "rel_scores": [0.6, 0.8]}  # fmt: skip
INFO = {"idx_to_files": ["1.jpg"], "ind_to_classes": ["b", "dog", "cat"], "ind_to_predicates": ["b", "near", "on"]}
ROW = {"image_id": "1", "answer": ANSWER, "frame": "resized", "input_wh": [10, 10], "sample": 0}
PARSED = {
    "image_id": "1", "status": "ok", "issues": [{"kind": "bad_box", "where": "x", "detail": "y"}], "task": "sgdet",
    "graph": {"objects": [{"id": f"dog.{n}", "bbox": box, "score": 0.5} for n, box in enumerate(BOXES)],
              "relationships": [{"subject": "dog.0", "predicate": "on", "object": "dog.1", "score": 0.4}]},
}  # fmt: skip

PREDICTIONS = {
    "coco": ("p.json", "coco", [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 20, 20], "score": 0.9}] * 2),
    "sgbench": ("p.json", "sgbench", {"version": 1, "images": [
        {"id": "1", "triplets": [[1, 0, 1]], "annotation": [{"category": n, "bbox": BOXES[n]} for n in (0, 1)]}]}),
    "gathered": ("p.json", "r1-sgg", {"1": GATHERED | {
        "names_target": ["dog", "cat"], "relation_tuples": [["dog", BOXES[0], "cat", BOXES[1], "on"]],
        "graph": {"all_node_pairs": [[0, 1]]}}}),
    "gathered by an old script": ("p.json", "r1-sgg", {"1": GATHERED | {
        "graph": {"all_node_pairs": [[0, 1]], "all_relation": [[0, 0, 1]]}}}),
    "gathered tuples": ("p.json", "r1-sgg", {"1": GATHERED | {
        "relation_tuples": [["dog.1", BOXES[0], "cat.2", BOXES[1], "on"]]}}),
    "folder": ("folder/p.json", "r1-sgg", {"image_id": "1", "response": ANSWER, "box_scale": [1000.0, 1000.0]}),
    "arrays": ("p.json", "arrays", {"0": ARRAYS}),
    "all scores": ("p.json", "arrays", {"0": ARRAYS | {"rel_all_scores": [[0.1, 0.6, 0.3], [0.1, 0.1, 0.8]]}}),
    "toon": ("p.jsonl", "toon", {"images": ["1.png"], "content": LINES, "predict": LINES}),
    "jsonl": ("p.jsonl", "jsonl", ROW),
    "parsed": ("p.jsonl", "jsonl", PARSED),
}  # fmt: skip
TRUTH = {
    "psg": ("t.json", PSG),
    "instances": ("t.json", INSTANCES),
    "toon": ("t.jsonl", {"images": ["1.png"], "content": LINES, "predict": LINES,
                         "messages": [{"content": "of size (640 x 480)"}]}),
}  # fmt: skip


def places(value, path=()):
    """The path of every part of a JSON value."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def spoilt(good, odd=WRONG):
    """The value with each of its parts replaced by each of the odd values, or taken out."""
    for path in list(places(good)):
        for wrong in (*odd, KeyError):
            made = [copy.deepcopy(good)]
            inner, key = made, 0
            for step in path:
                inner, key = inner[key], step
            if wrong is KeyError:
                del inner[key]
            else:
                inner[key] = wrong
            if made:
                yield path, made[0]


def save(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def paired(predictions):
    truth = GroundTruth([Example(image_id, 100, 100, SceneGraph()) for image_id in predictions.entries])
    return pair_up(predictions, truth, Conversation(OutputFormat(box_format="pixels")))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_predictions_with_one_thing_wrong(tmp_path, kind):
    name, form, good = PREDICTIONS[kind]
    save(tmp_path / "custom_data_info.json", INFO)
    if kind == "folder":
        save(tmp_path / "folder" / "other.json", good | {"image_id": "2"})
    path = tmp_path / name
    read = path.parent if kind == "folder" else path
    save(path, good)
    paired(read_predictions(read, form, NAMES))
    for place, value in spoilt(good):
        save(path, value)
        try:
            paired(read_predictions(read, form, NAMES))
        except UserError as error:
            assert str(read) in str(error), (place, value)


@pytest.mark.parametrize("kind", TRUTH)
def test_ground_truth_with_one_thing_wrong(tmp_path, kind):
    name, good = TRUTH[kind]
    assert len(load_ground_truth(str(save(tmp_path / name, good))).examples) == 1
    for place, value in spoilt(good):
        path = save(tmp_path / name, value)
        try:
            load_ground_truth(str(path))
        except UserError as error:
            assert str(path) in str(error), (place, value)


def test_the_names_beside_arrays_with_one_thing_wrong(tmp_path):
    path = save(tmp_path / "custom_prediction.json", {"0": ARRAYS})
    for place, value in spoilt(INFO):
        save(tmp_path / "custom_data_info.json", value)
        try:
            read_predictions(path)
        except UserError as error:
            assert str(tmp_path) in str(error), (place, value)


def test_npz_with_one_thing_wrong(tmp_path):
    path = tmp_path / "p.npz"
    good = {key: np.array(value) for key, value in (ARRAYS | {"rel_all_scores": [[0.1, 0.6], [0.1, 0.8]]}).items()}
    good |= {key: np.array(value) for key, value in INFO.items() if key != "idx_to_files"}
    good |= {"bbox_image": np.zeros(2, int), "rel_image": np.zeros(2, int), "image_id": np.array(["1"])}
    np.savez(path, **good)
    assert len(read_predictions(path).entries["1"].result.graph.relations) == 2
    odd = [None, np.array(1), np.array([]), np.array(["x", "y"]), np.zeros((2, 2, 2)), np.array([np.nan, np.inf]),
           np.array([10**18, -3]), np.zeros((2, 0))]  # fmt: skip
    for key in good:
        for wrong in odd:
            np.savez(path, **{name: value for name, value in (good | {key: wrong}).items() if value is not None})
            try:
                paired(read_predictions(path))
            except UserError as error:
                assert str(path) in str(error), (key, wrong)
    for content in (b"", b"PK", b"\x93NUMPY", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"p\.npz: cannot be read as an \.npz of arrays"):
            read_predictions(path)
    np.savez_compressed(path, **good)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read_predictions(path)
        except UserError:
            refused += 1
    assert refused > 20
    np.savez(path, **good)
    path.write_bytes(path.read_bytes().replace(b"'shape': (2, 4), ", b"'shape': (9**15,), "))  # more than there is
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(path)


def test_endless_numbers_in_a_line_cost_that_line():
    found = toon.parse(
        LINES.replace("2,cat", f"{'9' * 5000},cat,5,5,9,9\n2,cat").replace("1,on", f"1,on,{'9' * 5000}\n1,on")
    )
    assert [issue.kind for issue in found.issues] == ["malformed_object", "malformed_relation"]
    assert len(found.graph.objects) == 2 and len(found.graph.relations) == 1


def test_recall_under_the_constraint_reads_more_pairs_than_the_best_hundred_scores_cover(tmp_path):
    # 30 pairs with 10 predicates each: the 100 best scores cover the first 10 pairs only, but every pair has a best.
    count, width = 30, 10
    scores = [[0.0] + [1 - pair / 100 - p / 10_000 for p in range(width)] for pair in range(count)]
    image = {"bbox": [[n, 0, n + 1, 1] for n in range(count + 1)], "bbox_labels": [1] * (count + 1),
             "bbox_scores": [1.0] * (count + 1), "rel_pairs": [[n, n + 1] for n in range(count)],
             "rel_labels": [1] * count, "rel_scores": [row[1] for row in scores], "rel_all_scores": scores}  # fmt: skip
    save(tmp_path / "custom_data_info.json", INFO | {"ind_to_predicates": [f"p{n}" for n in range(width + 1)]})
    path = save(tmp_path / "custom_prediction.json", {"0": image})
    relations = read_predictions(path).entries["1"].result.graph.relations
    assert len(relations) == 100 + 20
    assert [entry.score for entry in relations] == sorted((entry.score for entry in relations), reverse=True)
    best = {}
    for entry in relations:
        best.setdefault((entry.subject, entry.object), entry.predicate)
    assert best == {(n, n + 1): "p1" for n in range(count)}


def test_the_commands_over_rows_with_one_thing_wrong(tmp_path, capsys):
    data, path, out = (tmp_path / name for name in ("data.jsonl", "p.jsonl", "out.jsonl"))
    data.write_text(json.dumps(example_to_row(Example("1", 100, 100, SceneGraph()))))
    good = PARSED | {"frame": "norm1000", "width": 100, "height": 100, "input_wh": None, "num_tokens": 3, "sample": 0}
    good["issues"] = [{"kind": "too_many", "where": "objects[1000:]", "detail": "7 elements beyond the bound"}]
    odd = (math.nan, [], {"a": 1}, f"{'9' * 5000} elements")
    for place, value in spoilt(good, odd):
        path.write_text("".join(json.dumps(row) + "\n" for row in (value, good | {"sample": 1})))
        for command in (
            lambda: run_eval(EvalOptions(pred=path, data=str(data), resamples=0), Console(file=io.StringIO())),
            lambda: merge_file(path, out),
        ):
            try:
                command()
            except UserError as error:
                assert str(path) in str(error), (place, value)
