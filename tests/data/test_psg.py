"""psg.json in its real schema: boxes, classes, splits, images, and what is wrong with rows that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.published_folders import PSG_ROWS, psg_value, write_image, write_psg
from scenerl import data
from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_boxes_classes_and_relations(tmp_path):
    record, other = data.read(f"psg:{write_psg(tmp_path)}", "train")
    example = record.unwrap()
    assert (example.image_id, example.width, example.height, example.image) == ("107", 80, 60, None)
    assert [(found.label, found.box) for found in example.graph.objects] == [
        ("person", (10, 5, 30, 50)),
        ("horse", (5, 20, 60, 60)),
        ("grass-merged", (0, 40, 80, 60)),
    ]
    # both predicates of the pair stay, the repeated relation and that of the box without width do not
    assert [example.graph.triplet(relation) for relation in example.graph.relations] == [
        ("person", "riding", "horse"),
        ("person", "over", "horse"),
        ("horse", "over", "grass-merged"),
    ]
    assert len(record.warnings) == 2 and "without area" in record.warnings[0] and "repeats" in record.warnings[1]
    assert other.unwrap().image_id == "108" and not other.example.graph.relations


def test_splits_and_ways_to_name_it(tmp_path):
    folder = write_psg(tmp_path / "data" / "psg")
    for source in (folder, folder / "psg.json", folder.parent):
        assert [example.image_id for example in data.load(f"psg:{source}", split="test")] == ["109"]
    with pytest.raises(DataError, match="needs a split; allowed: train, test"):
        list(data.load(f"psg:{folder}"))
    with pytest.raises(DataError, match=r"holds none of: psg\.json"):
        list(data.read(f"psg:{tmp_path}", "test"))


@pytest.mark.parametrize("place", [".", "coco", "../coco"])
def test_images_where_openpsg_puts_them(tmp_path, place):
    folder = write_psg(tmp_path / "psg")
    path = folder / place / "val2017" / "000000000011.jpg"
    write_image(path, (80, 60))
    (example,) = data.load(f"psg:{folder}", split="test", need_images=True)
    assert example.image.resolve() == path.resolve()


def test_reads_what_the_evaluator_reads(tmp_path):
    """The reader of psg.json as sgbench's ground truth and this one agree."""
    folder = write_psg(tmp_path)
    assert [example.graph for example in load_ground_truth(str(folder / "psg.json")).examples] == [
        example.graph for example in data.load(f"psg:{folder}", split="test")
    ]


def test_classes_may_stand_before_or_after_the_data(tmp_path):
    value = psg_value(PSG_ROWS, ["109"])
    (tmp_path / "psg.json").write_text(json.dumps(dict(reversed(value.items()))))
    assert [record.unwrap().image_id for record in data.read(f"psg:{tmp_path}", "test")] == ["109"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": [{"bbox": [0, 0, 1, 1], "category_id": 3}]},
            r"annotations\[0\] must have a known category_id",
        ),
        ({"annotations": [{"bbox": [0, 0, 1], "category_id": 0}], "relations": []}, "four finite numbers"),
        ({"annotations": [{"category_id": 0}], "relations": []}, "four finite numbers"),
        ({"annotations": [7]}, r"annotations\[0\]"),
        ({"annotations": None}, "annotations must be a list"),
        ({"relations": [[0, 1]]}, r"relations\[0\] must be \[subject, object, predicate\]"),
        ({"relations": [[0, 1, 3]]}, r"relations\[0\] must be"),
        ({"relations": [[0, 9, 1]]}, "names objects 0 and 9, but there are 2"),
        ({"relations": [[-1, 0, 1]]}, "names objects -1 and 0"),
        ({"relations": [[True, 0, 1]]}, r"relations\[0\] must be"),
        ({"width": None}, "width must be a whole number"),
        ({"height": 1.5}, "height must be a whole number"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, change, message):
    write_psg(tmp_path, [{**PSG_ROWS[2], **change}, PSG_ROWS[2]])
    bad, good = data.read(f"psg:{tmp_path}", "test")
    assert bad.example is None and good.example is not None
    with pytest.raises(DataError, match=rf"data\[0\]: .*{message}"):
        bad.unwrap()


def test_files_that_do_not_fit(tmp_path):
    for text in ("[]", "{}", '{"data": 3}', json.dumps({**psg_value([]), "predicate_classes": [1]}), "{"):
        (tmp_path / "psg.json").write_text(text)
        with pytest.raises(DataError, match=r"psg\.json"):
            list(data.read(f"psg:{tmp_path}", "train"))


def test_the_real_record(tmp_path):
    if not (SHARED / "real" / "psg_record.json").is_file():
        pytest.skip("there is no real record")
    row = json.loads((SHARED / "real" / "psg_record.json").read_text())
    value = {**json.loads((SHARED / "vocab" / "psg.json").read_text()), "data": [row], "test_image_ids": ["1"]}
    (tmp_path / "psg.json").write_text(json.dumps(value))
    (record,) = data.read(f"psg:{tmp_path}", "train")
    example = record.unwrap()
    assert example.image_id == "107902" and not record.warnings
    assert len(example.graph.objects) == 7 and len(example.graph.relations) == 6
    assert example.graph.triplet(example.graph.relations[0]) == ("person", "beside", "person")


def test_boxes_in_the_mode_of_x_y_width_height(tmp_path):
    boxes = {0: [10, 5, 30, 50], 1: [10, 5, 20, 45], None: [10, 5, 30, 50]}
    rows = [
        {"image_id": str(n), "width": 80, "height": 60, "relations": [],
         "annotations": [{"bbox": box, "bbox_mode": mode, "category_id": 0}]}
        for n, (mode, box) in enumerate(boxes.items())
    ]  # fmt: skip
    path = write_psg(tmp_path, [*rows, {**rows[0], "image_id": "9", "annotations": [rows[0]["annotations"][0]
                                        | {"bbox_mode": 4}]}], ()) / "psg.json"  # fmt: skip
    *good, bad = data.read(f"psg:{path}", "train")
    assert {record.example.graph.objects[0].box for record in good} == {(10, 5, 30, 50)}
    assert "annotations[0] has the bbox_mode 4; allowed: 0 (x1, y1, x2, y2), 1 (x, y, width, height)" in bad.errors[0]
