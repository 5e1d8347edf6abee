"""``scenerl data convert`` from our rows to the files of published scene-graph sets, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.published_folders import VG150_IMAGES, write_image, write_vcoco, write_vg150
from scenerl import data
from scenerl.commands.data import DataOptions
from scenerl.data.command import run
from scenerl.data.jsonl import write_jsonl
from scenerl.errors import DataError

ROWS = (
    {
        "image_id": "107",
        "file_name": "a.jpg",
        "width": 640,
        "height": 479,
        "objects": [
            {"id": "hat.1", "bbox": [0.25, 1, 11.125, 20.7]},
            {"id": "man.2", "bbox": [0, 0, 640, 479]},
            {"id": "man.3", "bbox": [100.1, 7, 333.3, 400]},
            {"id": "horse.4", "bbox": [639, 478, 640, 479]},
        ],
        "relationships": [
            {"subject": "man.2", "predicate": "hold obj", "object": "hat.1"},
            {"subject": "man.2", "predicate": "hold obj", "object": "man.3"},
            {"subject": "man.3", "predicate": "sit on instr", "object": "horse.4"},
            {"subject": "man.2", "predicate": "hold instr", "object": "horse.4"},
            {"subject": "hat.1", "predicate": "sit on instr", "object": "man.2"},
        ],
    },
    {
        "image_id": "5",
        "file_name": "b.jpg",
        "width": 30,
        "height": 90,
        "objects": [{"id": "horse.1", "bbox": [1, 2, 3, 4]}, {"id": "dog.2", "bbox": [0, 0, 30, 90]}],
        "relationships": [{"subject": "dog.2", "predicate": "hold obj", "object": "horse.1"}],
    },
)
"""Every object is in a relation, as V-COCO holds no others."""


def write_rows(folder: Path, *rows: dict, split: str = "train") -> Path:
    """A folder of our rows with their images; the only file is named by the split."""
    for row in rows:
        write_image(folder / "images" / row["file_name"], (row["width"], row["height"]))
    write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def convert(source: object, to: str, out: Path, **options) -> str:
    run(DataOptions(action="convert", source=str(source), to=to, out=out, **options))
    return f"{to}:{out}"


def content(examples) -> list:
    """What examples say, the order of objects and relations aside; boxes to a millionth of a pixel."""

    def obj(found):
        return found.label, tuple(round(number, 6) + 0.0 for number in found.box)

    return [
        (
            example.image_wh,
            sorted(map(obj, example.graph.objects)),
            sorted(
                (obj(example.graph.objects[edge.subject]), edge.predicate, obj(example.graph.objects[edge.object]))
                for edge in example.graph.relations
            ),
        )
        for example in examples
    ]


def by_id(examples) -> list:
    return sorted(examples, key=lambda example: int(example.image_id))


FORMS = [("vg150", ",num_validation=0", "train"), ("vg150", "", "test"), ("vcoco", "", "val"), ("psg", "", "test")]


@pytest.mark.parametrize(("to", "settings", "split"), FORMS)
def test_there_and_back(tmp_path, to, settings, split):
    if to == "vg150":
        pytest.importorskip("h5py", reason="vg150 needs h5py")
    folder = write_rows(tmp_path / "ours", *ROWS, split=split)
    before = list(data.load(folder, split=split))
    source = convert(folder, to, tmp_path / f"theirs{'.json' * (to == 'psg')}", split=split)
    again = list(data.load(f"{source}{settings}", split=split, need_images=True))
    assert sorted(example.image_id for example in again) == ["107", "5"]
    assert content(by_id(again)) == content(by_id(before))
    assert [example.image.resolve() for example in by_id(again)] == [example.image for example in by_id(before)]


def test_what_the_sets_hold_survives(tmp_path):
    """The sets themselves, by way of our rows: V-COCO's exactly, VG150's with what its reader tidies."""
    ours = convert(f"vcoco:{write_vcoco(tmp_path / 'vcoco')}", "jsonl", tmp_path / "v-coco.jsonl", split="test")
    again = convert(ours.removeprefix("jsonl:"), "vcoco", tmp_path / "again")
    found = list(data.load(again, split="train"))
    assert [example.image_id for example in found] == ["20", "30"]
    assert content(found) == content(data.load(ours))
    pytest.importorskip("h5py", reason="vg150 needs h5py")
    source = f"vg150:{write_vg150(tmp_path / 'vg', VG150_IMAGES)},num_validation=0"
    ours = convert(source, "jsonl", tmp_path / "vg.jsonl", split="train")
    again = convert(ours.removeprefix("jsonl:"), "vg150", tmp_path / "vg again")
    assert content(data.load(f"{again},num_validation=0", split="train")) == content(data.load(ours))


def test_v_coco_groups_things_by_person(tmp_path):
    """By hand: man 2 holds hat 1, then man 3 (obj), and the horse (instr), so the two first things share an entry."""
    out = tmp_path / "v-coco"
    convert(write_rows(tmp_path / "ours", *ROWS), "vcoco", out)
    hold, sit = json.loads((out / "data" / "vcoco" / "vcoco_train.json").read_text())
    assert (hold["action_name"], hold["role_name"]) == ("hold", ["agent", "obj", "instr"])
    assert hold["image_id"] == [107, 107, 5] and hold["ann_id"] == [2, 2, 6] and hold["label"] == [1, 1, 1]
    assert hold["role_object_id"] == [2, 2, 6, 1, 3, 5, 4, 0, 0]
    assert (sit["action_name"], sit["role_name"]) == ("sit on", ["agent", "instr"])
    assert sit["role_object_id"] == [3, 1, 4, 2]
    instances = json.loads((out / "data" / "instances_vcoco_all_2014.json").read_text())
    assert [found["id"] for found in instances["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [found["id"] for found in instances["images"]] == [107, 5]


@pytest.mark.parametrize("predicate", ["riding", "hold agent"])
def test_a_predicate_that_v_coco_has_no_place_for(tmp_path, predicate):
    row = {**ROWS[1], "relationships": [{**ROWS[1]["relationships"][0], "predicate": predicate}]}
    with pytest.raises(DataError, match=f"image '5': predicate '{predicate}' is none of V-COCO's"):
        convert(write_rows(tmp_path / "ours", row), "vcoco", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_v_coco_leaves_out_what_has_no_relation(tmp_path):
    alone = {"id": "cat.9", "bbox": [1, 1, 2, 2]}
    rows = [{**ROWS[1], "objects": [alone, *ROWS[1]["objects"]]}, {**ROWS[0], "relationships": []}]
    (example,) = data.load(convert(write_rows(tmp_path / "ours", *rows), "vcoco", tmp_path / "out"), split="train")
    assert example.image_id == "5" and sorted(found.label for found in example.graph.objects) == ["dog", "horse"]


def test_vg150_as_its_loaders_read_it(tmp_path):
    """By hand: 640 x 479 pixels, so 1.6 units a pixel; places and classes from the first row to the last."""
    h5py = pytest.importorskip("h5py", reason="vg150 needs h5py")
    empty = {"image_id": "6", "file_name": "c.jpg", "width": 8, "height": 8, "objects": [], "relationships": []}
    out = tmp_path / "vg"
    convert(write_rows(tmp_path / "ours", ROWS[0], empty, ROWS[1], split="test"), "vg150", out, split="test")
    with h5py.File(out / "VG-SGG.h5") as file:
        assert file["split"][:].tolist() == [2, 2, 2]
        assert file["img_to_first_box"][:].tolist() == [0, -1, 4] and file["img_to_last_box"][:].tolist() == [3, -1, 5]
        assert file["img_to_first_rel"][:].tolist() == [0, -1, 5] and file["img_to_last_rel"][:].tolist() == [4, -1, 5]
        assert file["labels"][:].ravel().tolist() == [1, 2, 2, 3, 3, 4] and file["labels"].shape == (6, 1)
        assert file["boxes_1024"][1].tolist() == pytest.approx([512, 383.2, 1024, 766.4])
        assert file["boxes_512"][1].tolist() == pytest.approx([256, 191.6, 512, 383.2])
        assert file["relationships"][:].tolist() == [[1, 0], [1, 2], [2, 3], [1, 3], [0, 1], [5, 4]]
        assert file["predicates"][:].ravel().tolist() == [1, 1, 2, 3, 2, 1]
    names = json.loads((out / "VG-SGG-dicts.json").read_text())
    assert names["idx_to_label"] == {"1": "hat", "2": "man", "3": "horse", "4": "dog"}
    assert names["predicate_to_idx"] == {"hold obj": 1, "sit on instr": 2, "hold instr": 3}
    assert json.loads((out / "image_data.json").read_text())[1] == {"width": 8, "height": 8, "image_id": 6}
    assert (out / "VG_100K" / "107.jpg").resolve() == (tmp_path / "ours" / "images" / "a.jpg").resolve()


def test_classes_are_numbered_as_a_vocabulary_has_them(tmp_path):
    pytest.importorskip("h5py", reason="vg150 needs h5py")
    row = {**ROWS[1], "relationships": [{**ROWS[1]["relationships"][0], "predicate": "riding"}]}
    path = write_rows(tmp_path / "ours", row)
    convert(path, "vg150", tmp_path / "vg", vocabulary=Path("vg150"))
    names = json.loads((tmp_path / "vg" / "VG-SGG-dicts.json").read_text())
    assert names["label_to_idx"]["airplane"] == 1 and len(names["idx_to_label"]) == 150
    assert len(names["idx_to_predicate"]) == 50
    convert(path, "psg", tmp_path / "psg.json", vocabulary=Path("vg150"))
    assert len(json.loads((tmp_path / "psg.json").read_text())["thing_classes"]) == 150
    with pytest.raises(DataError, match="not in the vocabulary: 'hold obj'"):
        convert(write_rows(tmp_path / "others", ROWS[1]), "vg150", tmp_path / "x", vocabulary=Path("vg150"))


def test_ids_that_vg150_cannot_hold_are_counted(tmp_path):
    """A name, or the number of an image that VG150's loaders skip."""
    pytest.importorskip("h5py", reason="vg150 needs h5py")
    for number, names in enumerate((("a", "7"), ("1592", "7"))):
        rows = [{**ROWS[1], "image_id": name} for name in names]
        folder = write_rows(tmp_path / f"ours{number}", *rows, split="test")
        source = convert(folder, "vg150", tmp_path / f"vg{number}", split="test")
        assert [example.image_id for example in data.load(source, split="test")] == ["1", "2"]


@pytest.mark.parametrize("to", ["vg150", "vcoco", "psg", "hub"])
def test_detections_are_no_graphs(tmp_path, to):
    pytest.importorskip("h5py", reason="vg150 needs h5py")
    pytest.importorskip("pyarrow", reason="the hub schema needs pyarrow")
    out = tmp_path / ("out" + {"psg": ".json", "hub": ".parquet"}.get(to, ""))
    with pytest.raises(DataError, match="holds scene graphs, not detections"):
        convert("synthetic_detection:count=1", to, out)
    assert not list(tmp_path.glob("*out*"))
    with pytest.raises(DataError, match="no image_id fits 'none'"):
        convert("synthetic:count=2", "vg150", tmp_path / "out", only=["none"])
    assert not (tmp_path / "out").exists()
