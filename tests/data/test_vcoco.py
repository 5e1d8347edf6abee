"""V-COCO in its real schema: roles to relations, COCO's instances to boxes."""

from __future__ import annotations

import copy
import json

import pytest

from data.published_folders import COCO_INSTANCES, VCOCO_ACTIONS, write_image, write_vcoco
from scenerl import data
from scenerl.data import vcoco
from scenerl.errors import DataError


@pytest.mark.parametrize("flat", [False, True])
def test_roles_become_relations(tmp_path, flat):
    first, second = data.load(f"vcoco:{write_vcoco(tmp_path, flat)}", split="test")  # 40 has no relation
    assert (first.image_id, first.width, first.height) == ("20", 640, 480)
    # in the order in which relations name them: 201, 203, 202
    assert [(found.label, found.box) for found in first.graph.objects] == [
        ("person", (10.5, 20, 110.75, 220)),
        ("scissors", (150, 100, 170, 130)),
        ("person", (300, 20, 400, 220)),
    ]
    assert [(edge.subject, edge.predicate, edge.object) for edge in first.graph.relations] == [
        (0, "hold obj", 1),
        (2, "cut instr", 1),
        (2, "cut obj", 0),
    ]
    assert second.image_id == "30" and second.graph.objects[1].box == (600, 400, 640, 480)  # clipped by a pixel


def test_images_under_both_names(tmp_path):
    write_vcoco(tmp_path)
    write_image(tmp_path / "coco" / "images" / "val2014" / "COCO_val2014_000000000020.jpg", (640, 480))
    write_image(tmp_path / "images" / "train2017" / "000000000030.jpg", (640, 480))
    examples = list(data.load(f"vcoco:{tmp_path}", split="test", need_images=True))
    assert [example.image.name for example in examples] == ["COCO_val2014_000000000020.jpg", "000000000030.jpg"]


def test_a_whole_path_needs_no_folder_of_images(tmp_path):
    instances = copy.deepcopy(COCO_INSTANCES)
    for image in instances["images"]:
        image["file_name"] = str(tmp_path / "elsewhere" / f"{image['id']}.jpg")
    (write_vcoco(tmp_path) / "data" / "instances_vcoco_all_2014.json").write_text(json.dumps(instances))
    examples = list(data.load(f"vcoco:{tmp_path}", split="test"))
    assert [example.image for example in examples] == [tmp_path / "elsewhere" / f"{n}.jpg" for n in (20, 30)]


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"holds none of: data/vcoco/vcoco_train\.json"):
        list(vcoco.read(tmp_path, "train"))
    with pytest.raises(DataError, match="allowed: train, val, trainval, test"):
        list(vcoco.read(tmp_path))
    write_vcoco(tmp_path)
    (tmp_path / "data" / "instances_vcoco_all_2014.json").unlink()
    with pytest.raises(DataError, match=r"holds no COCO instances; expected .*instances_train2014\.json"):
        list(vcoco.read(tmp_path, "test"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [1, 1]}, "'hold' has 4 image_id, 2 label and 8 role_object_id for 2 roles"),
        ({"role_object_id": [1, 2, 3]}, "3 role_object_id for 2 roles"),
        ({"role_name": None}, "entry 0 is not as expected"),
        ({"action_name": 3}, "entry 0 is not as expected"),
        ({"image_id": ["a"]}, "entry 0 is not as expected"),
        ({"label": [[1], [1, 2]]}, "entry 0 is not as expected"),
    ],
)
def test_actions_that_do_not_fit(tmp_path, change, message):
    path = write_vcoco(tmp_path) / "data" / "vcoco" / "vcoco_test.json"
    path.write_text(json.dumps([{**VCOCO_ACTIONS[0], **change}]))
    with pytest.raises(DataError, match=rf"vcoco_test\.json: .*{message}"):
        list(vcoco.read(tmp_path, "test"))


def test_columns_of_one_are_opened(tmp_path):
    """Some tools write the lists as columns of a table."""
    path = write_vcoco(tmp_path) / "data" / "vcoco" / "vcoco_test.json"
    before = [record.unwrap() for record in vcoco.read(tmp_path, "test")]
    columns = {key: [[entry] for entry in VCOCO_ACTIONS[0][key]] for key in ("image_id", "label", "ann_id")}
    path.write_text(json.dumps([{**VCOCO_ACTIONS[0], **columns}, *VCOCO_ACTIONS[1:]]))
    assert [record.unwrap() for record in vcoco.read(tmp_path, "test")] == before


@pytest.mark.parametrize(
    ("key", "entries", "message"),
    [
        ("annotations", [], "no instance 201"),
        ("categories", [{"id": 1, "name": "person"}], "no instance 203, or no name"),
        ("images", [], "no such image"),
    ],
)
def test_instances_that_do_not_fit(tmp_path, key, entries, message):
    instances = copy.deepcopy(COCO_INSTANCES)
    instances[key] = entries
    (write_vcoco(tmp_path) / "data" / "instances_vcoco_all_2014.json").write_text(json.dumps(instances))
    first = next(vcoco.read(tmp_path, "test"))
    assert first.example is None and message in first.errors[0]


def test_a_bad_box_and_a_bad_entry(tmp_path):
    instances = copy.deepcopy(COCO_INSTANCES)
    instances["annotations"][0]["bbox"] = [1, 2, "3"]
    path = write_vcoco(tmp_path) / "data" / "instances_vcoco_all_2014.json"
    path.write_text(json.dumps(instances))
    assert "four finite numbers" in next(vcoco.read(tmp_path, "test")).errors[0]
    instances["annotations"][0] = {"bbox": []}
    path.write_text(json.dumps(instances))
    with pytest.raises(DataError, match="an entry of annotations has no id"):
        list(vcoco.read(tmp_path, "test"))


@pytest.mark.parametrize("number", [[], {}, 1.5, True])
def test_a_category_that_is_no_number(tmp_path, number):
    write_vcoco(tmp_path)
    path = tmp_path / "data" / "instances_vcoco_all_2014.json"
    value = copy.deepcopy(COCO_INSTANCES)
    for entry in value["annotations"]:
        entry["category_id"] = number
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="no name for its category"):
        list(data.load(f"vcoco:{tmp_path}", split="test"))
