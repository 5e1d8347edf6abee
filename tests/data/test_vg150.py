"""VG150 in its real schema: boxes, splits, names, images, and what is wrong with files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.published_folders import VG150_IMAGES, write_image, write_vg150, write_vg150_names
from scenerl import data
from scenerl.data import vg150
from scenerl.errors import DataError

h5py = pytest.importorskip("h5py", reason="vg150 needs h5py")


@pytest.fixture
def folder(tmp_path):
    return write_vg150(tmp_path / "vg", VG150_IMAGES)


def read(folder: Path, split: str, num_validation: int = 1) -> list:
    return [record.unwrap() for record in vg150.read(f"{folder},num_validation={num_validation}", split)]


def test_boxes_labels_and_relations(folder):
    (example,) = read(folder, "val")
    assert (example.image_id, example.width, example.height) == ("11", 800, 600)
    # centre (256, 256), size (128, 256) -> corners 192, 128, 320, 384; times 800 / 1024
    man, horse = example.graph.objects
    assert man.label == "man" and man.box == (150, 100, 250, 300)
    assert horse.label == "horse" and horse.box == (200, 300, 600, 500)
    assert [example.graph.triplet(relation) for relation in example.graph.relations] == [("man", "on", "horse")]
    assert example.image is None


def test_the_longer_side_may_be_the_height(folder):
    (record,) = vg150.read(folder, "test")
    example = record.unwrap()
    # 512 x 1024 pixels: a unit is a pixel; 900 + 249 / 2 is half a unit beyond the edge, which is the scale's rounding
    assert [found.box for found in example.graph.objects] == [(0, 775.5, 200, 1024), (74.5, 774.5, 125.5, 825.5)]
    assert [example.graph.triplet(relation) for relation in example.graph.relations] == [
        ("man", "wearing", "hat"),
        ("hat", "on", "man"),
    ]
    assert [warning for warning in record.warnings if "repeats" in warning] and len(record.warnings) == 1


def test_splits(folder):
    """Images without boxes or relations belong to none; the first of the others in training are for validation."""
    assert [example.image_id for example in read(folder, "train")] == ["15"]
    assert [example.image_id for example in read(folder, "train", num_validation=0)] == ["11", "15"]
    assert [example.image_id for example in read(folder, "val", num_validation=5)] == ["11", "15"]
    assert [example.image_id for example in data.load(f"vg150:{folder},num_validation=1", split="train")] == ["15"]
    for split in (None, "dev"):
        with pytest.raises(DataError, match=r"vg150:.*split.*allowed: train, val, test"):
            list(vg150.read(folder, split))


def test_the_published_number_of_validation_images():
    """5,003 training images with relations, every tenth without: Motifs' order, count and filter."""
    with_relations = np.arange(5560) % 10 > 0
    index = {
        "split": np.array([0, 0, 2] * 1854)[:5560] * 0,
        "img_to_first_box": np.arange(5560),
        "img_to_first_rel": np.where(with_relations, 0, -1),
    }
    validation = vg150.images_of(index, "val")
    assert len(validation) == 5000 == vg150.NUM_VALIDATION and (np.diff(validation) > 0).all()
    assert validation[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    # 5,560 less 556 without relations are 5,004
    assert vg150.images_of(index, "train").tolist() == np.flatnonzero(with_relations)[5000:].tolist()
    assert len(vg150.images_of(index, "train")) == 4 and not len(vg150.images_of(index, "test"))


def test_files_without_attributes(tmp_path):
    folder = write_vg150(tmp_path / "vg", VG150_IMAGES, attributes=False)
    assert sorted(path.name for path in folder.iterdir()) == ["VG-SGG-dicts.json", "VG-SGG.h5", "image_data.json"]
    assert len(read(folder, "train", 0)) == 2


def test_images_in_either_folder(folder):
    write_image(folder / "VG_100K_2" / "11.jpg", (800, 600))
    assert read(folder, "val")[0].image == folder / "VG_100K_2" / "11.jpg"
    write_image(folder / "VG_100K" / "14.jpg", (512, 1024))
    assert read(folder, "test")[0].image == folder / "VG_100K" / "14.jpg"
    # not there, but there are folders: what reads images will name the file that is missing
    assert read(folder, "train")[0].image == folder / "VG_100K" / "15.jpg"


def test_through_the_common_path(folder):
    examples = list(data.load(f"vg150:{folder}", split="test"))
    assert [example.image_id for example in examples] == ["14"]
    with pytest.raises(DataError, match="names no image"):
        list(data.load(f"vg150:{folder}", split="test", need_images=True))


def test_each_image_has_its_own_boxes_and_relations(tmp_path):
    images = [
        {
            "image_id": 100 + n,
            "size": (1024, 1024),
            "split": 0,
            "boxes": [(1 + n % 3, 500, 500, 2 * n + 2, 10)] * (1 + n % 3),
            "relations": [(0, n % 3, 1 + n % 2)] if n % 3 else [],
        }
        for n in range(20)
    ]
    folder = write_vg150(tmp_path / "vg", images)
    examples = read(folder, "train", 0)
    assert [example.image_id for example in examples] == [str(100 + n) for n in range(20) if n % 3]
    for example in examples:
        n = int(example.image_id) - 100
        box = example.graph.objects[-1].box
        assert len(example.graph.objects) == 1 + n % 3 and box == (499 - n, 495, 501 + n, 505)
        assert example.graph.relations[0].object == n % 3


def test_a_box_outside_its_image_goes_with_its_relations(tmp_path):
    image = {
        "image_id": 1,
        "size": (1024, 100),
        "split": 0,
        "boxes": [(1, 500, 50, 20, 20), (2, 500, 300, 20, 20), (3, 500, 95, 20, 20)],
        "relations": [(0, 1, 1), (2, 0, 1)],
    }
    (record,) = vg150.read(f"{write_vg150(tmp_path / 'vg', [image])},num_validation=0", "train")
    example = record.unwrap()
    assert [found.label for found in example.graph.objects] == ["man", "hat"]
    assert [example.graph.triplet(relation) for relation in example.graph.relations] == [("hat", "on", "man")]
    # the hat ends at 105 of 100 pixels, more than the scale's rounding explains
    assert (
        len(record.warnings) == 2
        and "without area in the image" in record.warnings[0]
        and "clipped" in record.warnings[1]
    )


def test_files_that_do_not_belong_together(folder):
    rows = json.loads((folder / "image_data.json").read_text())
    (folder / "image_data.json").write_text(json.dumps(rows[:-2]))
    with pytest.raises(DataError, match="lists 4 images .*h5 holds 5; these files do not belong together"):
        read(folder, "train")


def test_a_class_without_a_name(folder):
    write_vg150_names(folder, ["man", "horse"], ["on", "wearing"])
    (record,) = vg150.read(folder, "test")
    assert record.example is None and "class or predicate 3 has no name" in record.errors[0]


def test_a_row_of_image_data_that_is_none(folder):
    rows = json.loads((folder / "image_data.json").read_text())
    rows[0] = {"image_id": 11, "width": "800"}
    (folder / "image_data.json").write_text(json.dumps(rows))
    (record,) = vg150.read(f"{folder},num_validation=1", "val")
    assert "width and height must be whole numbers" in record.errors[0] and "image 0" in record.where


@pytest.mark.parametrize("name", ["VG-SGG-with-attri.h5", "VG-SGG-dicts-with-attri.json", "image_data.json"])
def test_missing_and_broken_files(folder, name):
    (folder / name).write_text("x")
    with pytest.raises(DataError, match=name):
        read(folder, "train")
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"holds none of: .*{name[:6]}"):
        read(folder, "train")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", None, "'labels' must hold rows of 1, found nothing"),
        ("boxes_1024", np.zeros((4, 3)), r"'boxes_1024' must hold rows of 4, found \(4, 3\)"),
        ("img_to_last_rel", np.zeros(3), r"'img_to_last_rel' must hold 5 numbers, found \(3,\)"),
        ("relationships", np.zeros((1, 2), dtype=int), "'relationships' ends before image"),
        ("split", None, "'split' must hold 0 numbers, found nothing"),
    ],
)
def test_arrays_that_do_not_fit(folder, name, value, message):
    with h5py.File(folder / "VG-SGG-with-attri.h5", "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    with pytest.raises(DataError, match=message):
        read(folder, "test")
