"""Visual Genome's own files: names, merged objects, relations with whole objects or with their ids, sizes."""

from __future__ import annotations

import copy

import pytest

from data.detection_folders import write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.errors import DataError

TREE = {"synsets": ["tree.n.01"], "h": 50, "object_id": 1058549, "merged_object_ids": [1058552],
        "names": ["Trees", "x"], "w": 80, "y": 0, "x": 0}  # fmt: skip
WALK = {"synsets": ["sidewalk.n.01"], "h": 20, "object_id": 1058534, "merged_object_ids": [], "names": ["sidewalk"],
        "w": 30, "y": 60, "x": 10}  # fmt: skip
OBJECTS = [
    {"image_id": 1, "objects": [TREE, WALK], "image_url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"},
    {"image_id": 2, "objects": [], "image_url": "https://cs.stanford.edu/people/rak248/VG_100K/2.jpg"},
]
SHADE = {"name": "shade", "h": 10, "synsets": ["shade.n.01"], "object_id": 5, "w": 10, "y": 70, "x": 5}
RELATIONSHIPS = [
    {"relationships": [
        {"predicate": "ON ", "relationship_id": 1, "synsets": ["along.r.01"], "subject": SHADE,
         "object": {"name": "sidewalk", "h": 20, "object_id": 1058534, "w": 30, "y": 60, "x": 10, "synsets": []}},
        {"predicate": "beside", "relationship_id": 2, "synsets": [], "subject":
         {"name": "tree", "h": 50, "object_id": 1058552, "w": 80, "y": 0, "x": 0, "synsets": []}, "object":
         {"name": "sidewalk", "h": 20, "object_id": 1058534, "w": 30, "y": 60, "x": 10, "synsets": []}},
    ], "image_id": 1},
    {"relationships": [], "image_id": 2},
]  # fmt: skip
IMAGES = [{"image_id": 1, "width": 80, "height": 100, "url": "…/VG_100K_2/1.jpg", "coco_id": None, "flickr_id": None},
          {"image_id": 2, "width": 60, "height": 40}]  # fmt: skip


def write(folder, objects=OBJECTS, relationships=RELATIONSHIPS, images=IMAGES, version=""):
    for name, value in (("objects", objects), ("relationships", relationships), ("image_data", images)):
        write_json(folder / f"{name}{version}.json", value)
    return folder


@pytest.mark.parametrize("version", ["", "_v1_2", "_v1_4"])
def test_names_boxes_and_relations(tmp_path, version):
    first, second = data.load(f"vg:{write(tmp_path, version=version)}")
    assert (first.image_id, first.image_wh, second.image_id) == ("1", (80, 100), "2")
    assert [(item.label, item.box) for item in first.graph.objects] == [
        ("trees", (0, 0, 80, 50)),
        ("sidewalk", (10, 60, 40, 80)),
        ("shade", (5, 70, 15, 80)),  # only relationships.json has it
    ]
    assert [first.graph.triplet(relation) for relation in first.graph.relations] == [
        ("shade", "on", "sidewalk"),
        ("trees", "beside", "sidewalk"),  # the tree is one of those that were merged into the trees
    ]


def test_images_in_both_folders(tmp_path):
    write_image(tmp_path / "VG_100K_2" / "1.jpg", (80, 100))
    write_image(tmp_path / "VG_100K" / "2.jpg", (60, 40))
    examples = list(data.load(f"vg:{write(tmp_path)}", need_images=True))
    assert [example.image.parent.name for example in examples] == ["VG_100K_2", "VG_100K"]


def test_relations_that_name_objects_by_id(tmp_path):
    relations = [{"predicate": "on", "subject_id": 1058549, "object_id": 1058534, "relationship_id": 3}]
    folder = write(tmp_path, relationships=[{"image_id": 1, "relationships": relations}])
    first, second = data.load(f"vg:{folder}")
    assert [first.graph.triplet(relation) for relation in first.graph.relations] == [("trees", "on", "sidewalk")]
    assert second.graph.relations == ()  # the file does not have the image


def test_the_order_of_images_may_differ_and_version_1_calls_ids_otherwise(tmp_path):
    objects = copy.deepcopy(OBJECTS)
    for row in objects:
        row["id"] = row.pop("image_id")
    images = [{"id": 2, "width": 60, "height": 40}, {"id": 1, "width": 80, "height": 100}]
    first, second = data.load(f"vg:{write(tmp_path, objects, RELATIONSHIPS[::-1], images)}")
    assert (first.image_id, len(first.graph.relations), second.image_id) == ("1", 2, "2")


def test_what_has_no_name_box_or_end_is_left_out_with_a_warning(tmp_path):
    objects = [{"image_id": 1, "objects": [TREE, WALK | {"names": []}, WALK | {"x": None, "object_id": 7}, "tree"]}]
    relations = [{"predicate": None, "subject": SHADE, "object": TREE}, {"predicate": "on", "subject_id": 99,
                 "object_id": 1058549}, 3]  # fmt: skip
    record, *_ = data.read(f"vg:{write(tmp_path, objects, [{'image_id': 1, 'relationships': relations}])}")
    assert [item.label for item in record.example.graph.objects] == ["trees", "shade"]
    assert [warning.split(" is left out")[0] for warning in record.warnings] == [
        *["an object without a name or a box"] * 3,
        *["a relation without subject, predicate or object"] * 3,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": [{"image_id": 9, "objects": []}]}, "has no image 9"),
        ({"objects": [{"image_id": 1}]}, "must have an image_id and a list of objects"),
        ({"objects": {}}, "no JSON list"),
        ({"relationships": [{"image_id": 1, "relationships": None}]}, "a list of relationships"),
        ({"images": [{"image_id": 1, "width": "80", "height": 100}]}, "width must be a whole number"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(data.load(f"vg:{write(tmp_path, **changes)}"))


def test_files_that_are_missing_or_a_split(tmp_path):
    with pytest.raises(DataError, match=r"holds none of: image_data\.json, image_data_v1_4\.json"):
        list(data.load(f"vg:{tmp_path}"))
    with pytest.raises(DataError, match="has no split 'train'"):
        list(data.load(f"vg:{write(tmp_path)}", split="train"))
