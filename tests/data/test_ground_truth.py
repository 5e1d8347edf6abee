"""One way from every source to the ground truth: `FILE` and `name:FILE` agree, and boxes stay as the file has them."""

from __future__ import annotations

import json

import pytest

from data.detection_folders import COCO, write_coco, write_d3, write_ovdeval
from data.published_folders import write_psg
from scenerl import data
from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import DataError
from scenerl.evaluate import run_eval

CROWD = {"id": 90, "image_id": 139, "category_id": 18, "bbox": [100, 0, 300, 100], "area": 30000, "iscrowd": 1}


def test_a_file_and_its_named_source_are_one_ground_truth(tmp_path):
    path = write_coco(tmp_path)
    assert (
        load_ground_truth(path) == load_ground_truth(f"coco:{path}") == load_ground_truth(f"coco:{tmp_path}", "val2017")
    )
    subset = write_ovdeval(tmp_path / "ovdeval") / "material.json"
    assert load_ground_truth(subset) == load_ground_truth(f"ovdeval:{subset}")
    psg = write_psg(tmp_path / "psg") / "psg.json"
    assert load_ground_truth(psg) == load_ground_truth(psg, "test") == load_ground_truth(f"psg:{psg.parent}", "test")
    assert load_ground_truth(psg, "train") == load_ground_truth(f"psg:{psg}", "train")


def test_named_sources_without_numbers_are_those_of_training(tmp_path):
    source = "synthetic:count=3"
    assert load_ground_truth(source).examples == list(data.load(source))
    d3 = f"d3:{write_d3(tmp_path)}"
    assert [example.query for example in load_ground_truth(d3).examples] == [example.query for example in data.load(d3)]


def test_boxes_stay_as_they_stand_and_sizes_may_be_missing(tmp_path):
    path = write_coco(tmp_path)
    value = json.loads(path.read_text())
    for image in value["images"]:
        del image["width"]
    path.write_text(json.dumps(value))
    truth = load_ground_truth(path)
    assert [example.image_wh for example in truth.examples] == [(0, 426), (0, 640)]
    assert truth.names.objects == {category["id"]: category["name"] for category in COCO["categories"]}
    # the dog without area, which training leaves out, is a target as it is for pycocotools
    assert "dog" in {found.label for found in truth.examples[1].graph.objects}
    with pytest.raises(DataError, match="width must be a whole number"):
        list(data.load(f"coco:{path}"))


def test_crowds_are_regions_to_ignore_on_every_route(tmp_path):
    """pycocotools ignores what lies on a crowd, so the detection there is no false alarm: AP50 is 1, not 0.5."""
    path = write_coco(
        tmp_path, annotations=[{"id": 1, "image_id": 139, "category_id": 18, "bbox": [10, 20, 30, 40]}, CROWD]
    )
    example = load_ground_truth(path).examples[0]
    assert [(found.label, found.box) for found in example.crowds] == [("dog", (100, 0, 400, 100))]
    assert next(iter(data.load(f"coco:{path}"))).crowds == example.crowds
    rows = tmp_path / "rows.jsonl"
    data.jsonl.write_jsonl(rows, map(data.rows.example_to_row, data.load(f"coco:{path}")))
    results = tmp_path / "results.json"
    results.write_text(
        json.dumps(
            [
                {"image_id": 139, "category_id": 18, "bbox": [110, 10, 30, 30], "score": 0.9},  # on the crowd
                {"image_id": 139, "category_id": 18, "bbox": [10, 20, 30, 40], "score": 0.8},
            ]
        )
    )
    predicted = tmp_path / "predicted.jsonl"
    objects = [{"id": "dog.1", "bbox": [110, 10, 140, 40], "score": 0.9}, {"id": "dog.2", "bbox": [10, 20, 40, 60]}]
    predicted.write_text(
        "".join(
            json.dumps({"image_id": image_id, "status": "ok", "graph": {"objects": found, "relationships": []}}) + "\n"
            for image_id, found in (("139", [objects[0], {**objects[1], "score": 0.8}]), ("285", []))
        )
    )
    found = {}
    for name, pred, source in (
        ("file", results, path),
        ("named", results, f"coco:{path}"),
        ("rows", predicted, rows),
        ("rows against the file", predicted, path),
    ):
        out = tmp_path / "metrics.json"
        run_eval(EvalOptions(pred=pred, data=str(source), task="det", resamples=0, out=out))
        found[name] = json.loads(out.read_text())["metrics"]["AP50"]["value"]
    assert set(found.values()) == {1.0}, found


def test_a_json_file_of_another_kind(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="neither COCO instances .* nor psg.json"):
        load_ground_truth(path)
