"""COCO's instances: boxes, crowds and what is asked for."""

from __future__ import annotations

import copy
import itertools
import json

import pytest

from data.detection_folders import COCO, write_coco, write_json
from scenerl import data
from scenerl.data import coco, instances
from scenerl.errors import DataError


def test_boxes_become_corners_and_crowds_are_left_out(tmp_path):
    path = write_coco(tmp_path)
    person, bear = data.load(f"coco:{path}", need_images=True)
    assert (person.image_id, person.image_wh, person.image.name) == ("139", (640, 426), "000000000139.jpg")
    assert [(found.label, found.box) for found in person.graph.objects] == [
        ("person", pytest.approx((412.8, 157.61, 465.85, 295.62))),
        ("dog", (10, 20, 40, 60)),
    ]
    assert person.query == ("person", "dog", "bear", "cup")
    assert [(found.label, found.box) for found in bear.graph.objects] == [("bear", (1, 69, 586, 640))]
    assert bear.query == ("bear", "cup")  # a crowd of persons and a dog without area: neither there nor absent


def test_a_box_without_area_is_a_warning(tmp_path):
    _, bear = data.read(f"coco:{write_coco(tmp_path)}")
    assert bear.example is not None and bear.warnings == (
        "1 box without area in the image left out: 'dog' (5.0, 5.0, 5.0, 12.0)",
    )


def test_a_folder_and_a_split_name_the_file(tmp_path):
    write_coco(tmp_path)
    assert [example.image_id for example in data.load(f"coco:{tmp_path}", split="val2017")] == ["139", "285"]
    with pytest.raises(DataError, match="has no split 'train2017'; allowed: val2017"):
        list(data.load(f"coco:{tmp_path}", split="train2017"))


def test_queries(tmp_path):
    path = write_coco(tmp_path)
    present, _ = data.load(f"coco:{path},query=present")
    assert present.query == ("person", "dog")
    sampled = {next(iter(data.load(f"coco:{path},query=sampled,negatives=1,seed={seed}"))).query for seed in range(20)}
    assert {frozenset(query) for query in sampled} == {
        frozenset(("person", "dog", "bear")),
        frozenset(("person", "dog", "cup")),
    }
    assert len(sampled) > 2  # the order is drawn too
    again = [list(data.load(f"coco:{path},query=sampled,negatives=1,seed=3")) for _ in range(2)]
    assert again[0] == again[1]


def test_filtered_drops_categories_of_more_than_ten_boxes(tmp_path):
    dogs = [
        {"id": n, "image_id": 139, "category_id": 18, "bbox": [n, n, 10, 10], "iscrowd": 0} for n in range(11)
    ]  # with COCO's own dog 12
    bears = [{"id": n, "image_id": 285, "category_id": 23, "bbox": [n, n, 10, 10]} for n in range(9)]
    path = write_coco(tmp_path, annotations=COCO["annotations"] + dogs + bears)
    many, ten = data.load(f"coco:{path},filtered=1")
    assert {found.label for found in many.graph.objects} == {"person"} and "dog" not in many.query
    assert len(ten.graph.objects) == 10 and "bear" in ten.query
    assert len(next(iter(data.load(f"coco:{path}"))).graph.objects) == 13


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (",query=some", "allowed for query: all, present, sampled"),
        (",negatives=-1", "negatives takes a whole number"),
        (",colour=red", "unknown setting 'colour'; allowed: images, query, negatives, seed, filtered"),
        (",images=nowhere", "images=nowhere: there is no such folder"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        list(data.load(f"coco:{write_coco(tmp_path)}{settings}"))


def test_annotations_that_cannot_be_used_are_errors_of_their_image(tmp_path):
    bad = [
        {"id": 7, "image_id": 139, "category_id": 99, "bbox": [1, 2, 3, 4]},
        {"id": 8, "image_id": 139, "category_id": 1, "bbox": [1, 2, 3]},
        {"id": 9, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
        "box",
    ]
    path = write_coco(tmp_path, annotations=COCO["annotations"] + bad)
    records = list(data.read(f"coco:{path}"))
    assert [len(record.errors) for record in records] == [1, 1, 2, 0]
    assert "annotations[8] must name an image" in records[0].errors[0]
    assert "is no category's id or name: 99" in records[2].errors[0] and "annotations[7]" in records[2].errors[1]
    assert records[3].example is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\] must be an object with an id of its own"),
        ({"images": COCO["images"] * 2}, r"images\[2\] must be an object with an id of its own"),
        (
            {"categories": [{"id": 1.5, "name": "person"}]},
            r"categories\[0\] must have a whole number or a text as 'id'",
        ),
        ({"annotations": {}}, "not JSON"),
    ],
)
def test_a_file_of_another_schema(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(data.load(f"coco:{write_coco(tmp_path, **changes)}"))


def test_the_order_of_the_parts_does_not_matter(tmp_path):
    path = write_coco(tmp_path)
    wanted = list(data.load(f"coco:{path}"))
    for order in itertools.permutations(instances.KEYS):
        path.write_text(json.dumps({key: COCO[key] for key in order}))
        assert list(data.load(f"coco:{path}")) == wanted


def test_two_categories_of_one_name_stay_two(tmp_path):
    categories = copy.deepcopy(COCO["categories"])
    categories[2]["name"] = "dog"
    first, _ = data.load(f"coco:{write_coco(tmp_path, categories=categories)}")
    assert first.query == ("person", "dog #18", "dog #23", "cup")


def test_without_images_the_examples_have_none(tmp_path):
    example = next(iter(data.load(f"coco:{write_json(tmp_path / 'instances.json', COCO)}")))
    assert example.image is None and coco.QUERIES[0] == "all"
