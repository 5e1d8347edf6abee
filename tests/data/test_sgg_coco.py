"""SGG-Benchmark's COCO form: relations between annotations, predicates by number, and what is wrong with files."""

from __future__ import annotations

import copy
import json

import pytest

from data.detection_folders import write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import DataError
from scenerl.evaluate import run_eval

VALUE = {
    "images": [
        {"id": 107902, "file_name": "000000107902.jpg", "width": 100, "height": 80},
        {"id": 2, "file_name": "2.jpg", "width": 50, "height": 40},
    ],
    "annotations": [
        {"id": 11, "image_id": 107902, "category_id": 1, "bbox": [10, 5, 20, 45], "area": 900, "iscrowd": 0},
        {"id": 12, "image_id": 2, "category_id": 2, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 13, "image_id": 107902, "category_id": 2, "bbox": [5, 20, 55, 40], "area": 2200, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person", "supercategory": "none"}, {"id": 2, "name": "horse"}],
    "rel_annotations": [
        {"id": 0, "image_id": 107902, "subject_id": 11, "predicate_id": 2, "object_id": 13},
        {"id": 1, "image_id": 107902, "subject_id": 13, "predicate_id": 1, "object_id": 11},
    ],
    "rel_categories": [{"id": 1, "name": "under"}, {"id": 2, "name": "riding"}],
}
TRIPLETS = [("person", "riding", "horse"), ("horse", "under", "person")]


def triplets(example):
    return [example.graph.triplet(relation) for relation in example.graph.relations]


def write(tmp_path, **changes):
    return write_json(tmp_path / "test.json", {**copy.deepcopy(VALUE), **changes})


def test_relations_join_boxes_by_the_ids_of_annotations(tmp_path):
    first, second = data.load(f"sgg_coco:{write(tmp_path)}")
    assert [(item.label, item.box) for item in first.graph.objects] == [
        ("person", (10, 5, 30, 50)),
        ("horse", (5, 20, 60, 60)),
    ]
    assert triplets(first) == TRIPLETS and first.query is None
    assert (second.image_id, second.graph.relations) == ("2", ())  # images without relations stay


def test_it_is_recognised_among_coco_files(tmp_path):
    path = write(tmp_path)
    assert data.resolve(str(path))[0] == "sgg_coco"
    assert list(data.load(path)) == list(data.load(f"sgg_coco:{path}"))
    assert next(iter(data.load(f"coco:{path}"))).query == ("person", "horse")  # its boxes alone, on request


def test_splits_of_the_mirrors(tmp_path):
    for split in ("train", "test"):
        write_json(tmp_path / split / "_annotations.coco.json", VALUE)
        for image in VALUE["images"]:
            write_image(tmp_path / split / image["file_name"], (image["width"], image["height"]))
    examples = list(data.load(f"sgg_coco:{tmp_path}", split="test", need_images=True))
    assert examples[0].image == tmp_path / "test" / "000000107902.jpg"
    with pytest.raises(DataError, match="needs a split; allowed: test, train"):
        list(data.load(f"sgg_coco:{tmp_path}"))


@pytest.mark.parametrize(
    "changes",
    [
        {"rel_categories": ["under", "riding"]},  # their loader counts names from 1
        {"rel_categories": [{"id": 0, "name": "__background__"}, *VALUE["rel_categories"]]},
        {"rel_annotations": [{**entry, "predicate_id": float(entry["predicate_id"]), "subject_id":
                              float(entry["subject_id"])} for entry in VALUE["rel_annotations"]]},
        {"annotations": VALUE["annotations"][::-1]},
    ],
)  # fmt: skip
def test_other_ways_to_write_it(tmp_path, changes):
    truth = load_ground_truth(write(tmp_path, **changes))
    assert triplets(truth.examples[0]) == TRIPLETS
    assert tuple(truth.names.predicates) == ("under", "riding")


def test_numbers_from_zero_as_the_annotation_tool_writes_them(tmp_path):
    value = copy.deepcopy(VALUE)
    for entry in (*value["categories"], *value["rel_categories"]):
        entry["id"] -= 1
    for entry in value["annotations"]:
        entry["category_id"] -= 1
    for entry in value["rel_annotations"]:
        entry["predicate_id"] -= 1
    assert triplets(next(iter(data.load(write_json(tmp_path / "zero.json", value))))) == TRIPLETS


@pytest.mark.parametrize("change", [{"subject_id": 12}, {"object_id": 99}, {"predicate_id": 9}])
def test_relations_to_nothing_are_left_out_with_a_warning(tmp_path, change):
    relations = [VALUE["rel_annotations"][0] | change, VALUE["rel_annotations"][1]]
    record, _ = data.read(f"sgg_coco:{write(tmp_path, rel_annotations=relations)}")
    assert triplets(record.example) == TRIPLETS[1:]
    assert "1 relation whose subject, predicate or object" in record.warnings[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rel_categories": []}, "rel_categories is missing or empty"),
        ({"rel_categories": [{"id": "a", "name": "on"}]}, r"rel_categories\[0\] must have an id and a name"),
        ({"rel_categories": [{"id": 1, "name": "on"}, {"id": 1, "name": "in"}]}, "the id 1 has another name already"),
        ({"rel_annotations": [{"image_id": 1}]}, r"rel_annotations\[0\] must have image_id, subject_id"),
        ({"rel_annotations": [None]}, r"rel_annotations\[0\] must have image_id, subject_id"),
        ({"annotations": [{"id": 1, "image_id": 2, "category_id": 9, "bbox": [1, 2, 3, 4]}]}, "must name an image"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(data.load(f"sgg_coco:{write(tmp_path, **changes)}"))


def test_ground_truth_scores_everything(tmp_path):
    path, out = write(tmp_path), tmp_path / "metrics.json"
    rows = [{"image_id": "107902", "answer": json.dumps({
        "objects": [{"id": "person.1", "bbox": [10, 5, 30, 50]}, {"id": "horse.2", "bbox": [5, 20, 60, 60]}],
        "relationships": [{"subject": "person.1", "predicate": "riding", "object": "horse.2"},
                          {"subject": "horse.2", "predicate": "under", "object": "person.1"}]})}]  # fmt: skip
    pred = tmp_path / "answers.jsonl"
    pred.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_eval(EvalOptions(pred=pred, data=str(path), out=out, frame="pixels", resamples=0))
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["R@20"]["value"] == metrics["mR@20"]["value"] == 1
